"""How often the watermark's detector finds something where nothing is: `python -m benchmarks.watermark_false_finds`.

Images are cut at random out of the bundled heads and any `--photos` and `--clips`, at random sizes, mirrored, with noise and
JPEG, so that hardly two are equal. Three ways of looking at them:

- one place: each image of 64 px is read as one mark, as the detector does first.
- videos: the same for the mean of 25 images' charts, of one source that drifts and trembles.
- whole search: the detector with all places and sizes, on fewer images of 64 to 160 px.

Printed are the mean and deviation of one message's score under a key of each image's own, which should be 0 and 1; and, with
the public key, for how many images the detector's own bound on the chance of its best message is below 0.1, 0.01 and so on.
The share below x must not be above x; it is far below, since the bound counts all messages and places as if they were
independent.
"""

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, bundled_heads, read_videos
from th_jax.media import open_video, read_image
from th_jax.provenance.watermark.detect import detect
from th_jax.provenance.watermark.layout import SMALL, chips_of, decode
from th_jax.provenance.watermark.search import Place, Size, read_chips
from th_jax.provenance.watermark.view import view_of

_SIDE = 64
_WHOLE = Place(0.0, 0.0, float(_SIDE), 0.0)
_SIZE = Size(SMALL.chips, float(_SIDE))


def sources(photos: list[Path], clips: list[Path]) -> list[np.ndarray]:
    """Images to cut from: eight frames of each bundled person, the photos, and every fiftieth frame of the clips."""
    images = [
        decode_frame(jpeg, size=FRAME_SIZE)
        for split in ("train", "heldout")
        for _, record in read_videos(bundled_heads(), split)
        for jpeg in record.frames[:8]
    ]
    images += [read_image(photo) for photo in photos]
    for clip in clips:
        with open_video(clip) as video:
            images += [frame for index, (_, frame) in enumerate(video.frames()) if index % 50 == 0]
    return images


def cut_out(images: list[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """An unmarked image of `side` x `side` pixels."""
    image = images[rng.integers(len(images))]
    least = 1.01 * side / min(image.shape[:2])
    scale = math.exp(rng.uniform(math.log(least), math.log(3.0 * max(least, 0.5))))
    corner = rng.random(2) * (np.array(image.shape[1::-1]) - side / scale)
    return worn(_window(image, scale, corner, side), rng)


def cut_video(images: list[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """25 frames of 64 x 64 pixels that drift over one image."""
    image = images[rng.integers(len(images))]
    scale = 1.5 * _SIDE / min(image.shape[:2])
    corner = rng.random(2) * (np.array(image.shape[1::-1]) - _SIDE / scale)
    drift = rng.normal(scale=rng.choice([0.0, 0.1, 1.0]) / scale, size=2)
    for t in range(25):
        yield worn(_window(image, scale, corner + t * drift + rng.normal(scale=0.1 / scale, size=2), _SIDE), rng)


def worn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image mirrored, with noise, through JPEG, or as it is."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    noisy = image + rng.choice([0.0, 1.0, 4.0]) * rng.standard_normal(image.shape, np.float32)
    image = np.ascontiguousarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])[1]
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def _window(image: np.ndarray, scale: float, corner: np.ndarray, side: int) -> np.ndarray:
    move = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    window = cv2.warpAffine(image, move, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(window)


def at_one_place(frames: Iterable[np.ndarray], index: int) -> tuple[float, float]:
    """One message's score under a key of its own, and log10 of the bound for the public key's best message."""
    view = view_of(frames, sizes=lambda shape: [_SIZE])
    assert view is not None
    values = read_chips(view.chart(_SIZE), _WHOLE, layout=SMALL)
    norm = float(np.linalg.norm(values))
    if norm == 0:
        return 0.0, 0.0
    fixed = float((values * chips_of(index % 65536, layout=SMALL, key=b"%d" % index)).sum()) / norm
    best = decode(values, layout=SMALL).total / norm
    return fixed, min(0.0, (SMALL.bits * math.log(2) - best**2 / 2) / math.log(10))


def show(name: str, scores: list[float], bounds: list[float]) -> None:
    """A row of the table."""
    deviation = f"{np.mean(scores):+.4f} | {np.std(scores):.4f}" if scores else " | "
    below = " | ".join(str(int(np.sum(np.array(bounds) < -power))) for power in range(1, 7))
    print(f"| {name} | {len(bounds)} | {deviation} | {below} | 10^{min(bounds):.1f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watermark_false_finds")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--searches", type=int, default=2_000)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    images, rng = sources(options.photos, options.clips), np.random.default_rng(1)
    print(f"cut out of {len(images)} images")
    print("| | n | mean | deviation | < 0.1 | < 0.01 | < 1e-3 | < 1e-4 | < 1e-5 | < 1e-6 | least |")
    print("|---" * 11 + "|")
    ways = {
        "one place": (options.images, lambda: [cut_out(images, _SIDE, rng)]),
        "videos": (options.videos, lambda: cut_video(images, rng)),
    }
    for name, (count, make) in ways.items():
        if count:
            scores, bounds = zip(*(at_one_place(make(), index) for index in range(count)), strict=True)
            show(name, list(scores), list(bounds))
    bounds = []
    for _ in range(options.searches):
        found = detect(cut_out(images, int(rng.integers(64, 161)), rng), false_finds=0.5)
        bounds.append(min((mark.log10_chance for mark in found.marks), default=0.0))
    if bounds:
        show("whole search", [], bounds)


if __name__ == "__main__":
    main()
