"""Readers of images with their captions."""
