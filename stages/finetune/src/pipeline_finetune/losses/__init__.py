"""Losses, one per file. They work on scores, so bi-encoders and cross-encoders share them (see `base.Loss`)."""
