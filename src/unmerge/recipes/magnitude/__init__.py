"""Merges that keep entries by their magnitude: bands of ranks, weights in mergekit's own sums, and both beside something unknown."""
