"""The run directory: layout, locks, manifests, freshness, logs, progress, and the runner of every stage."""
