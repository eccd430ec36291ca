"""Black videos with clicks at known times, in any audio codec, and the detection of the clicks."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from th_jax.media.audio import decode_sound

RATE = 16000
BLACK = np.zeros((32, 32, 3), np.uint8)

Pieces = list[tuple[float, np.ndarray]]


def clicks(seconds: float, *, every: float = 0.5, rate: int = RATE) -> np.ndarray:
    """A click of 5 ms at every half second but the first moment."""
    wave = np.zeros(round(seconds * rate), np.int16)
    for begin in np.arange(every, seconds, every):
        wave[round(begin * rate) : round((begin + 0.005) * rate)] = 16000
    return wave


def clicking_video(
    path: Path, pieces: Pieces, *, codec: str, images: int = 50, rate: int = RATE, layout: str = "mono",
    damaged: Callable[[int], bool] = lambda _: False,
) -> Path:  # fmt: skip
    """Black frames at 25 frames/s, with clicks at the given times in seconds; packets can be damaged by number."""
    with av.open(str(path), "w") as container:
        image = container.add_stream("mpeg4", rate=25)
        image.width, image.height, image.pix_fmt = 32, 32, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout=layout)
        packets = []
        resampler = av.AudioResampler(format=track.codec_context.format, layout=layout, rate=rate, frame_size=1024)
        for begin, wave in pieces:
            frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, round(begin * rate), Fraction(1, rate)
            for piece in resampler.resample(frame):
                packets += track.encode(piece)
        for piece in resampler.resample(None):
            packets += track.encode(piece)
        packets += track.encode(None)
        for index in range(images):
            frame = av.VideoFrame.from_ndarray(BLACK, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(image.encode(frame))
        container.mux(image.encode(None))
        for number, packet in enumerate(packets):
            if damaged(number):
                memoryview(packet)[:] = bytes(packet.size)
            container.mux(packet)
    return path


def heard(path: Path) -> tuple[int, np.ndarray]:
    """Rate and samples, Int16 `[C, n]`, decoded in this process."""
    (rate, channels), *blocks = decode_sound(str(path))
    assert all(len(block) == channels for block in blocks)
    return rate, np.concatenate(blocks, axis=1)


def click_times(path: Path) -> np.ndarray:
    """Times in seconds at which it gets loud."""
    rate, samples = heard(path)
    loud = np.flatnonzero(np.abs(samples.astype(int)).max(0) > 6000) / rate
    return loud[np.diff(loud, prepend=-1.0) > 0.1]
