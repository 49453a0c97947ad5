"""Image and text encoders, and the heads that project them into the shared space."""
