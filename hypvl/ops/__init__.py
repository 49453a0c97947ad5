"""Fused computations that hypvl needs and no library has."""
