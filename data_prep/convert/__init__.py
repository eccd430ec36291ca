"""Converts published perceptual networks to safetensors."""
