"""Readers of images with true and false captions, and of groups of two images and two captions."""
