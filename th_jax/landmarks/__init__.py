"""The landmark scheme of 68 + 2 points, and the drawing, smoothing and retargeting of landmarks."""
