"""The sdg stage."""
