"""Files of every kind, read to documents: Markdown-like text with its title."""
