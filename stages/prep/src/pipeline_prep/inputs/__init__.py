"""What prep reads: every format becomes `Converted`."""
