"""Readers of is-a trees, chains of captions, and images with boxes."""
