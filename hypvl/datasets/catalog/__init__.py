"""The classification sets that can be named: where they come from, what is there, what is missing."""
