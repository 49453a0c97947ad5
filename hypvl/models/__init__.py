"""Dual encoders, model definitions (zoo), and checkpoint key tables."""
