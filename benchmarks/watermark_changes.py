"""What `benchmarks.watermark` does to marked images before it searches them: compression, sizes, cuts, levels, noise."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from th_jax.media import open_video
from th_jax.provenance import Kind, Provenance, write_video


class Changed(NamedTuple):
    """A changed image, and where its mark now lies."""

    image: np.ndarray
    left: float
    top: float
    side: float


def jpeg(quality: int) -> Callable[[np.ndarray, np.random.Generator], Changed]:
    """JPEG with subsampled colours."""

    def change(image: np.ndarray, rng: np.random.Generator) -> Changed:
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return Changed(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), 0.0, 0.0, float(len(image)))

    return change


def resize(scale: float) -> Callable[[np.ndarray, np.random.Generator], Changed]:
    """Another size, by area."""

    def change(image: np.ndarray, rng: np.random.Generator) -> Changed:
        side = round(len(image) * scale)
        return Changed(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), 0.0, 0.0, float(side))

    return change


def levels(*, factor: float, shift: float, noise: float) -> Callable[[np.ndarray, np.random.Generator], Changed]:
    """Contrast about mid-grey, brightness and white noise, in grey levels."""

    def change(image: np.ndarray, rng: np.random.Generator) -> Changed:
        values = (image - 128.0) * factor + 128.0 + shift + rng.normal(scale=noise or 1e-9, size=image.shape)
        return Changed(np.clip(np.rint(values), 0, 255).astype(np.uint8), 0.0, 0.0, float(len(image)))

    return change


def crop(image: np.ndarray, rng: np.random.Generator) -> Changed:
    """Nine tenths of both sides, from anywhere."""
    side = round(0.9 * len(image))
    left, top = (int(n) for n in rng.integers(0, len(image) - side + 1, 2))
    cut = np.ascontiguousarray(image[top : top + side, left : left + side])
    return Changed(cut, float(-left), float(-top), float(len(image)))


def cropped_jpeg(image: np.ndarray, rng: np.random.Generator) -> Changed:
    """A crop that is then saved as JPEG 75."""
    cut = crop(image, rng)
    return cut._replace(image=jpeg(75)(cut.image, rng).image)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], Changed]] = {
    "clean": levels(factor=1.0, shift=0.0, noise=0.0),
    **{f"JPEG {quality}": jpeg(quality) for quality in (90, 75, 50, 30)},
    "resized to 75 %": resize(0.75),
    "resized to 50 %": resize(0.5),
    "cropped by 10 %": crop,
    "cropped by 10 %, JPEG 75": cropped_jpeg,
    "contrast 0.8, brightness +20": levels(factor=0.8, shift=20.0, noise=0.0),
    "noise, 5 gray levels": levels(factor=1.0, shift=0.0, noise=5.0),
}


def through_h264(frames: np.ndarray, crf: int) -> list[np.ndarray]:
    """The video as it is read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        # A figure: what is generated would get another mark on its way out.
        write_video(path, list(frames), fps=25, provenance=Provenance(kind=Kind.FIGURE), crf=crf)
        with open_video(path) as video:
            return [frame for _, frame in video.frames()]
