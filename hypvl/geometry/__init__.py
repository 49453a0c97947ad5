"""Where embeddings live: manifolds, similarity scores, entailment cones."""
