"""Training rows from every accepted format: `read.read_sources` turns what a configuration names into `rows.Rows`."""
