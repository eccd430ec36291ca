"""Driving an avatar with a video, a camera or landmarks, and exporting it for other runtimes."""
