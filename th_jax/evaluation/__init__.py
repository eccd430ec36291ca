"""Evaluation of generated frames: metrics on arrays, and scores of a run on held-out people."""
