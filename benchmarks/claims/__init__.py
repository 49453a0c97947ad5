"""Claims of the papers, tested on small models: see __main__.py."""
