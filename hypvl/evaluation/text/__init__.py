"""What is measured of texts alone: similarity of sentences and words, triplets, passages."""
