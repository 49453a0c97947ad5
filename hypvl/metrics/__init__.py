"""Metrics: pure functions of score matrices, predictions, labels and rankings."""
