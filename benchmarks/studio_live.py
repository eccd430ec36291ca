"""Pictures a second of the studio's tab Live: `python -m benchmarks.studio_live [--meta heads64 heads] [--seconds 20]`.

Frames of a bundled person, as a camera of 640x480 gives them 30 times a second, go the way of the page's: as image files that
an isolated process decodes, to the avatar of another bundled person. The page asks for a picture with each frame and waits
for the answer, as here. The milliseconds are from the decoded frame to its picture. Needs two cores without other work.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

import th_jax
from th_jax.avatars.examples import DRIVER, consent_of, write_shots
from th_jax.consent import write_consent
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.studio.live import LiveView
from th_jax.studio.session import Studio

_WIDTH, _HEIGHT, _FPS = 640, 480, 30
_WARM_UP = 2.0
"""Seconds after the first picture that do not count."""
_MOST_WITHOUT_FACE = 600


def camera_images() -> list[bytes]:
    """Return the driver's frames as JPEG files of a camera's size, forward and backward."""
    images = []
    for jpeg in VideoRecords(bundled_heads(), "heldout").read(DRIVER).frames:
        face = cv2.resize(decode_frame(jpeg, size=FRAME_SIZE), (_HEIGHT, _HEIGHT), interpolation=cv2.INTER_CUBIC)
        side = (_WIDTH - _HEIGHT) // 2
        wide = cv2.copyMakeBorder(face, 0, 0, side, side, cv2.BORDER_REPLICATE)
        images.append(cv2.imencode(".jpg", wide[..., ::-1])[1].tobytes())
    return images + images[::-1]


def measure(meta: str, seconds: float, folder: Path) -> None:
    """Print a line of the table."""
    shots = write_shots("head", folder)
    loaded = th_jax.load_meta(meta)
    studio = Studio(folder / "studio", meta=meta)
    try:
        consent = studio.folder.consent("head")
        write_consent(consent, consent_of("head", shots))
        th_jax.finetune(loaded, shots, consent=consent, train=False).save(studio.folder.avatar("head"))
        images, frame = camera_images(), studio.folder.uploads / "frame.jpg"
        number, counted, begun, late = 0, 0, float("inf"), list[float]()
        shown: float | None = None
        first: LiveView | None = None
        view: LiveView | None = None
        while time.monotonic() < begun + seconds and (shown is not None or number < _MOST_WITHOUT_FACE):
            sent = time.monotonic()
            frame.write_bytes(images[number % len(images)])
            view = studio.live("head", frame)
            if view.error:
                raise SystemExit(view.error)
            if view.picture is not None and shown is None:
                shown = sent
            if shown is not None and first is None and sent >= shown + _WARM_UP:
                first, begun = view, sent
            elif first is not None and view.pictures > counted:
                late.append(view.latency)
            counted = view.pictures
            number += 1
            time.sleep(max(0.0, sent + 1 / _FPS - time.monotonic()))
        if first is None or view is None:
            raise SystemExit("no face was found in the frames")
        rate = (view.pictures - first.pictures) / seconds
        p50, p95 = 1000 * np.percentile(late, (50, 95))
        size = loaded.networks.image_size
        print(f"{meta:<12}{size:>5}{rate:>12.1f}{p50:>10.0f}{p95:>10.0f}{view.dropped - first.dropped:>10}", flush=True)
    finally:
        studio.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meta", nargs="+", default=["heads64", "heads"])
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores; milliseconds from the decoded frame to its picture")
    print(f"{'weights':<12}{'px':>5}{'pictures/s':>12}{'p50':>10}{'p95':>10}{'dropped':>10}", flush=True)
    for meta in options.meta:
        with tempfile.TemporaryDirectory() as folder:
            measure(meta, options.seconds, Path(folder))


if __name__ == "__main__":
    main()
