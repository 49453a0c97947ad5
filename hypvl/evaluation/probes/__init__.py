"""What evaluations fit themselves: logistic regression, K-Means, training splits, and what they predict."""
