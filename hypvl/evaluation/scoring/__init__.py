"""From embeddings to scores beyond one matrix: pairs, ensembles of prompts, exact ranks, further positives."""
