"""Preparation of data and weights, run from a checkout: records, rendered heads, converted networks."""
