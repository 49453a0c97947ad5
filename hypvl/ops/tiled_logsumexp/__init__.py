"""Log-sum-exps over the rows and columns of a score matrix that is never held: kernels, tile steps, autograd."""
