"""Checkpoints of runs: written whole or not at all, also in the background and in shards; found again; compared."""
