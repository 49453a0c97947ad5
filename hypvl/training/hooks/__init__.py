"""Hooks around the training steps: log records, checkpoints, the audit, watching over the run."""
