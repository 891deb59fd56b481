"""The prep stage."""
