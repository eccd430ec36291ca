"""Small valid records of made-up videos."""

import hashlib

import cv2
import numpy as np

from th_jax.data.schema import VideoRecord


def record_of(number: int, *, size: int = 24, points: int = 70, true_landmarks: bool = True) -> VideoRecord:
    rng = np.random.default_rng(number)
    frames = 4 + number % 2
    coarse = rng.integers(0, 256, (frames, 3, 3, 3), dtype=np.uint8)
    landmarks = rng.random((frames, points, 2), np.float32)
    landmarks[1, 5] = np.nan
    return VideoRecord(
        frames=tuple(cv2.imencode(".jpg", cv2.resize(c, (size, size)))[1].tobytes() for c in coarse),
        landmarks=landmarks,
        true_landmarks=landmarks**2 if true_landmarks else None,
        times=np.arange(frames, dtype=np.float32),
        clips=np.zeros(frames, np.int64),
        crops=np.tile(np.array([0, 0, size], np.float32), (frames, 1)),
        minimum_gap=1.0,
        identity=f"person{number // 2}",
        video_id=f"video{number}",
        source_sha256=hashlib.sha256(bytes([number])).hexdigest(),
        licence="CC0-1.0" if number else "CC-BY-4.0",
    )
