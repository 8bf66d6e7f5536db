"""Errors, records, staging: what every room uses."""
