"""Frozen networks that compare images: VGG feature pyramids and face features."""
