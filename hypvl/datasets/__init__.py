"""Data sets of the evaluations: readers of their folder layouts, names, prompts, the catalog of all."""
