"""One script per claim; each measures both sides in one process and prints one JSON line."""
