"""Training: learner, step, loop, hooks, optimizer, checkpoints."""
