"""Inspection pages and contact sheets of a data set."""
