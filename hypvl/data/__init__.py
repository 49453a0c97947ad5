"""Reading image-text data: every sample is a pure function of its position."""
