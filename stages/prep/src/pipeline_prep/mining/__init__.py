"""Hard negatives: the passages nearest to a question that do not answer it."""
