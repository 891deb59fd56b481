"""Encoders, pooling, batching by tokens and exact search. Needs the extra `torch`."""
