"""Word error rate as a module for `evaluate.load`."""
