"""A local page on which the 68 landmarks of one photo are placed by hand, for `--landmarks`."""
