"""False captions one change away from a true one: hard negatives of the four types of CE-CLIP."""
