"""Metrics (pure functions of score matrices) and one evaluator a file."""
