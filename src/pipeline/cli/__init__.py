"""The command line: the only part of the root package that prints."""
