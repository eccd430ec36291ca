"""Frames whose gray level encodes their index, with a tone."""

from fractions import Fraction
from typing import Any

import av
import numpy as np

SIZE = (96, 64)


def numbered_frame(index: int) -> np.ndarray:
    """Gray level proportional to the index; the upper left corner is red, the upper right one green."""
    frame = np.full((SIZE[1], SIZE[0], 3), 20 + 4 * index, np.uint8)
    frame[:24, :24], frame[:24, -24:] = (255, 0, 0), (0, 255, 0)
    return frame


def index_of(frame: np.ndarray) -> int:
    """The index of a numbered frame in any orientation."""
    height, width = frame.shape[:2]
    return round((float(frame[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4].mean()) - 20) / 4)


def add_sound(container: Any, seconds: float, codec: str) -> Any:
    stream = container.add_stream(codec, rate=16000, layout="mono")
    tone = (8000 * np.sin(np.arange(int(16000 * seconds)) * 0.2)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
    packets = []
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=16000, frame_size=1024)
    for piece in resampler.resample(frame) + resampler.resample(None):
        packets += stream.encode(piece)
    return packets + stream.encode(None)
