"""Fuzz targets of the search for marks in untrusted files and images."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from tests.fuzz.mutations import edited
from tests.fuzz.targets import Target
from tests.hostile import valid_files

TARGETS: dict[str, Target] = {}
"""Empty where neither watermarks nor verification are installed."""


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every small shape and some large ones; noise, flat, striped or blurred; also what is no image."""
    height, width = (draw(st.sampled_from((0, 1, 2, 3, 16, 31, 64, 65, 130))) for _ in range(2))
    shape = draw(st.sampled_from(((height, width, 3), (height, width, 3), (height, width), (height, width, 4), (3,))))
    kind = draw(st.sampled_from(("noise", "flat", "stripes", "blurred", "wrong type")))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if kind == "wrong type":
        return rng.normal(size=shape).astype(draw(st.sampled_from((np.float32, np.int64, np.bool_))))
    pixels = rng.integers(0, 256, shape, np.uint8)
    if kind == "flat":
        pixels[...] = draw(st.integers(0, 255))
    elif kind == "stripes" and pixels.ndim > 1:
        pixels[:, ::2] = draw(st.integers(0, 255))
    elif kind == "blurred" and pixels.ndim > 1 and pixels.size:
        pixels = cv2.blur(pixels, (5, 5)).reshape(shape)
    return pixels


def _content(make: Callable[[Path], Path]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder)).read_bytes()


def _marked(folder: Path) -> Path:
    """An image that leaves as all do, with whatever marks that brings."""
    from th_jax.provenance import write_image

    return write_image(folder / "a.png", valid_files.noise(0, 32, 32, 3), provenance=valid_files.PROVENANCE)


try:
    from th_jax.provenance.watermark.detect import detect
except ImportError:
    pass
else:

    def look_for_marks(_: Path, image: np.ndarray) -> None:
        """Noise holds no mark, whatever its shape; marks that are found have their place and chance."""
        for mark in detect(image).marks:
            assert 0 <= mark.message < 2**mark.bits
            assert np.isfinite([mark.left, mark.top, mark.side, mark.log10_chance]).all()

    TARGETS["watermark"] = Target(images(), look_for_marks, (ValueError, TypeError))

try:
    from th_jax.provenance.verify import verify_file
except ImportError:
    pass
else:

    def _here(function: Callable[..., Any], name: str, *, within: Any, **options: Any) -> Any:
        """In this process: what its sandbox would hide must not happen either."""
        return function(name, **options)

    def read(suffix: str) -> Callable[[Path, bytes], None]:
        def verify(folder: Path, content: bytes) -> None:
            path = folder / f"a{suffix}"
            path.write_bytes(content)
            report = verify_file(path, seconds=1.0, run=_here)
            assert report.lines
            assert all(line.isprintable() for line in report.lines)
            assert report.to_dict()["exit_code"] in range(5)

        return verify

    TARGETS["verify, PNG"] = Target(edited(_content(_marked)), read(".png"), ())
    TARGETS["verify, JPEG"] = Target(edited(_content(lambda f: valid_files.image(f, "a.jpg"))), read(".jpg"), ())
    TARGETS["verify, MP4"] = Target(edited(_content(valid_files.video)), read(".mp4"), ())
