"""Where a stage runs: a plan (command, environment, inputs, outputs), and the executors that carry it out."""
