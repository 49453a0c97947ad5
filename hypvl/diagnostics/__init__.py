"""What a geometry contributes, and the gap between modalities: pure functions of embeddings."""
