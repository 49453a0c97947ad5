"""One evaluator a file, the probes, and the results that they leave."""
