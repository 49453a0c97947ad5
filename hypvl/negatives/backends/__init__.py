"""Where words come from: which words a caption has, and what may stand in their place."""
