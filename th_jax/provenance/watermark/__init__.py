"""Spread-spectrum watermarks: messages embedded in pixels on the device, and detected in any image.

`detect` does not need JAX; `embed` and `messages` write the watermark.
"""
