"""Reads traces: motion, outcome, neurons, statistics (numpy, polars)."""
