"""`pipeline data …`: commands on data files that belong to no stage."""
