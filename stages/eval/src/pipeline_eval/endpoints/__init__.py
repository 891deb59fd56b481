"""Clients of served models: one HTTP core, and for each API what a request and a reply look like."""
