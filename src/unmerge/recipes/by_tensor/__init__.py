"""Merges that leave each tensor a combination of whole models: its coefficients, their pattern over tensors, and the numbers typed."""
