"""Models of hypvl in the harnesses and databases that others wrote, ranked by the model's own score."""
