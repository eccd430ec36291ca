"""Builds a data set of TFRecord shards from a folder of videos or photos."""
