"""The file formats of the run directory, each read and written in exactly one place."""
