"""A video whose geometry, colors, timing and sound can be checked by decoding it, or what was made of it.

A rendered person looks into the camera; at 1, 2 and 3 seconds her mouth opens, the image brightens and a click sounds. A
red square marks the upper left corner, a green one the upper right. The fixture `base_clip` is the video, made once.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads

WIDTH, HEIGHT, FPS, SECONDS = 640, 480, 30, 4
EVENTS = (1.0, 2.0, 3.0)
"""Seconds at which the mouth opens, the image brightens and a click sounds."""
BRIGHT, OPEN, CLICK = 0.1, 0.3, 0.005
"""Seconds for which each of them lasts."""
RATE = 48000
"""Samples of the sound a second, of one channel."""

_PERSON, _CLOSED, _OPEN = 20, 24, 49
"""A bundled person who was held out, and two of her frames with nearly the same pose."""
_BRIGHTER, _MARK = 40, 32

_BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}


def base_images() -> dict[str, np.ndarray]:
    """The three images of the video, `[480, 640, 3]` of RGB in 0..255: "closed", "open" (the mouth), "bright" (and open)."""
    frames = VideoRecords(bundled_heads(), "heldout").read(_PERSON).frames
    images = {}
    for name, index in (("closed", _CLOSED), ("open", _OPEN)):
        face = cv2.resize(decode_frame(frames[index], size=FRAME_SIZE), (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
        side = (WIDTH - HEIGHT) // 2
        images[name] = cv2.copyMakeBorder(face, 0, 0, side, side, cv2.BORDER_REPLICATE)
    images["bright"] = cv2.add(images["open"], np.full_like(images["open"], _BRIGHTER))
    for image in images.values():
        image[:_MARK, :_MARK], image[:_MARK, -_MARK:] = (220, 30, 30), (30, 200, 30)
    return images


def base_frames(*, fps: float = FPS, seconds: float = SECONDS) -> Iterator[np.ndarray]:
    """The frames of the video at any rate; a frame shows what is to be seen at its time."""
    images = base_images()
    for index in range(round(seconds * fps)):
        since = min((index / fps - event + 1e-6 for event in EVENTS if index / fps + 1e-6 >= event), default=np.inf)
        yield images["bright" if since < BRIGHT else "open" if since < OPEN else "closed"]


def base_sound(*, seconds: float = SECONDS) -> np.ndarray:
    """The samples of the video's sound, `int16[n]`: silence and three clicks of 2 kHz."""
    samples = np.zeros(round(seconds * RATE), np.int16)
    click = (20000 * np.sin(np.arange(round(CLICK * RATE)) * 2 * np.pi * 2000 / RATE)).astype(np.int16)
    for event in EVENTS:
        start = round(event * RATE)
        samples[start : start + len(click)] = click[: max(0, len(samples) - start)]
    return samples


def write_test_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: float = FPS,
    sound: np.ndarray | None = None,
    codec: str = "libx264",
    sound_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    declared: dict[str, Any] | None = None,
) -> Path:
    """Write frames `[H, W, 3]` of RGB in 0..255, in declared BT.709, or PyAV's own frames as they are; returns the path.

    Args:
        path: its suffix chooses the container.
        frames: of equal size.
        fps: frames a second.
        sound: `int16[n]` at `RATE`; None for no sound.
        codec: FFmpeg's name of the video encoder.
        sound_codec: FFmpeg's name of the audio encoder.
        pix_fmt: of the coded frames.
        options: of the video encoder.
        declared: attributes of PyAV's codec context, such as color_trc; None for those of BT.709.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = pix_fmt
        stream.options = {"preset": "ultrafast", "crf": "8"} if options is None else options
        for name, value in (_BT709 if declared is None else declared).items():
            setattr(stream.codec_context, name, value)
        packets = [] if sound is None else _coded_sound(container, sound, sound_codec)
        for index, image in enumerate(frames):
            frame = image
            if isinstance(image, np.ndarray):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(format=pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
            if not index:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for packet in packets:
            container.mux(packet)
    return path


def write_base_clip(path: Path, **settings: Any) -> Path:
    """The video itself, 4 seconds with sound; `settings` are those of `write_video`."""
    return write_test_video(path, base_frames(fps=settings.get("fps", FPS)), **{"sound": base_sound(), **settings})


def flashes(times: Iterable[float], frames: Iterable[np.ndarray]) -> list[float]:
    """The times at which frames become as bright as the video's bright image is beside its others."""
    pairs = [(time, float(frame.mean())) for time, frame in zip(times, frames, strict=True)]
    threshold = np.median([light for _, light in pairs]) + _BRIGHTER / 2
    bright = [light > threshold for _, light in pairs]
    return [pairs[i][0] for i in range(len(pairs)) if bright[i] and not (i and bright[i - 1])]


def clicks(samples: np.ndarray, *, rate: int = RATE) -> list[float]:
    """The times at which clicks begin in samples of sound `[n]` or `[C, n]`, in seconds."""
    loud = np.abs(np.atleast_2d(samples).astype(float)).max(0)
    above = np.flatnonzero(loud > 0.3 * loud.max()) / rate if loud.size and loud.max() else np.zeros(0)
    return [float(time) for i, time in enumerate(above) if not i or time - above[i - 1] > 0.1]


def _coded_sound(container: Any, samples: np.ndarray, codec: str) -> list[Any]:
    stream = container.add_stream(codec, rate=RATE, layout="mono")
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=RATE, frame_size=1024)
    pieces = resampler.resample(frame) + resampler.resample(None)
    return [packet for piece in pieces for packet in stream.encode(piece)] + stream.encode(None)
