"""Removes people from data sets, and every file derived from them."""
