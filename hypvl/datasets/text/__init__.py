"""Readers of data sets of texts: pairs and triplets of sentences, labelled sentences, passages."""
