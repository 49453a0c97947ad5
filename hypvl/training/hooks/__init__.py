"""What happens around the training steps: logging, checkpoints, the root embedding, orderly stops."""
