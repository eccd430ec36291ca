"""Writes tests/data/portrait.heic, a photo as phones take it: HEVC, and turned by the container's `irot` and `imir`.

pip install pillow-heif    # it also encodes, and is no dependency: its wheel holds x265
PYTHONPATH=.:tests python tests/golden/make_heic.py
"""

from pathlib import Path

import cv2
import pillow_heif
from base_clip import base_images
from PIL import Image

ORIENTATION = 7
"""As EXIF counts: mirrored on the diagonal from lower left to upper right."""

if __name__ == "__main__":
    pillow_heif.register_heif_opener()
    image = Image.fromarray(cv2.resize(base_images()["closed"], (160, 120), interpolation=cv2.INTER_AREA))
    exif = Image.Exif()
    exif[0x0112] = ORIENTATION
    image.info["exif"] = exif.tobytes()
    image.save(Path(__file__).parents[1] / "data" / "portrait.heic", quality=70, exif=exif.tobytes())
