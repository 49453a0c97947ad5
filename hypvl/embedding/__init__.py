"""From images and texts to embeddings: once, shared between processes, kept in stores, exported."""
