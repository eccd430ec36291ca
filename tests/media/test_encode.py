"""The same frames give the same file."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from th_jax.media.encode import encode_h264

PORTRAIT = Path(__file__).parents[2] / "th_jax/assets/portrait/astronaut.jpg"


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    # Ten frames of a moving face: x264's AVX-512 code gave 20 different files in 60 encodings of them.
    portrait = cv2.imread(str(PORTRAIT), cv2.IMREAD_COLOR_RGB)
    frames = []
    for shift in range(10):
        scale = (1 + 0.02 * shift) * 192 / max(portrait.shape)
        matrix = np.array([[scale, 0, -2.0 * shift], [0, scale, -1.0 * shift]])
        frames.append(cv2.warpAffine(portrait, matrix, (192, 192), borderMode=cv2.BORDER_REPLICATE))
    files = set()
    for number in range(12):
        path = tmp_path / f"{number}.mp4"
        encode_h264(path, iter(frames), rate=Fraction(10), crf=18, audio_from=None)
        files.add(path.read_bytes())
    assert len(files) == 1
