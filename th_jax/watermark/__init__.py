"""A message in the pixels: spread-spectrum marks, embedded on the device and read back from any picture.

`detect` reads them without JAX; `embed` and `messages` put them in.
"""
