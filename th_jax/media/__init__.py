"""Decodes local images and videos, with limits; all media input goes through this package."""

from th_jax.media.limits import DEFAULT_LIMITS, Limits, MediaError, MediaFault
from th_jax.media.read import IMAGE_SUFFIXES, VIDEO_SUFFIXES, open_video, read_image
from th_jax.media.video import Video

__all__ = [
    "DEFAULT_LIMITS",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Limits",
    "MediaError",
    "MediaFault",
    "Video",
    "open_video",
    "read_image",
]
