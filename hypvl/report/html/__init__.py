"""The HTML report of a run: one page without a server, from the files in the run's folder."""
