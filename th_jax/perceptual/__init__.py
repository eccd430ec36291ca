"""Frozen networks that compare pictures: VGG feature pyramids and face features."""
