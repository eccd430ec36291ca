"""Encodes a stream of frames as H.264 in MP4, with the sound of another file beside them."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from th_jax.media.backends import pyav
from th_jax.media.sound import Sound, open_sound

_BITS = 96_000
"""A second, for each channel of sound."""

_BT709 = 1
"""FFmpeg's number for the colour matrix, primaries and transfer of BT.709, and for video's narrow range."""


def encode_h264(
    target: Path, frames: Iterator[np.ndarray], *, rate: Fraction, crf: int, audio_from: Path | None
) -> None:
    """Write UInt8 `[H, W, 3]` frames of one size to `target`, which must be an absolute path.

    Raises:
        MediaError: if `audio_from` has no sound that can be decoded, or its process comes to a bad end.
        OSError: if the disk refuses.
    """
    av = pyav()
    with ExitStack() as resources:
        # The sound is opened and the first frame taken before anything is written: most errors show here.
        sound = None if audio_from is None else open_sound(audio_from)
        if sound is not None:
            resources.enter_context(closing(sound.blocks))
        first = next(frames)
        output = resources.enter_context(av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}))
        height, width = first.shape[:2]
        picture = _add_h264(output, width + width % 2, height + height % 2, rate, crf)
        track = None if sound is None else _SoundTrack(output, sound)
        for index, frame in enumerate(_chain(first, frames)):
            output.mux(picture.encode(_video_frame(frame, index, rate)))
            for packet in track.until((index + 1) / rate) if track is not None else ():
                output.mux(packet)
        output.mux(picture.encode(None))
        for packet in track.rest() if track is not None else ():
            output.mux(packet)


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _add_h264(output: Any, width: int, height: int, rate: Fraction, crf: int) -> Any:
    stream = output.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"crf": str(crf), "preset": "medium"}
    context = stream.codec_context
    # Several threads do not always make the same file of the same frames; small pictures gain nothing from them.
    context.thread_count = 1
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709
    return stream


def _video_frame(frame: np.ndarray, index: int, rate: Fraction) -> Any:
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    colors = pyav().video.reformatter
    encoded = (
        pyav()
        .VideoFrame.from_ndarray(frame, format="rgb24")
        .reformat(format="yuv420p", dst_colorspace=colors.Colorspace.ITU709, dst_color_range=colors.ColorRange.MPEG)
    )
    encoded.pts, encoded.time_base = index, 1 / rate
    return encoded


class _SoundTrack:
    """Sound, encoded as AAC as far as the pictures have come: so a film of hours needs no more memory than one of seconds."""

    def __init__(self, output: Any, sound: Sound) -> None:
        layout = "mono" if sound.channels == 1 else "stereo"
        self._stream = output.add_stream("aac", rate=sound.rate, layout=layout)
        # More than 6 bits a sample AAC cannot hold.
        self._stream.bit_rate = sound.channels * min(_BITS, 6 * sound.rate)
        self._sound = sound
        self._waiting = np.zeros((sound.channels, 0), np.int16)
        self._position = 0

    def until(self, seconds: Fraction) -> Iterator[Any]:
        """The packets that are ready when all samples before that time have been put in."""
        while (missing := int(seconds * self._sound.rate) - self._position) > 0:
            if not self._waiting.size:
                block = next(self._sound.blocks, None)
                if block is None:
                    return
                self._waiting = block
            piece, self._waiting = np.split(self._waiting, [missing], axis=1)
            yield from self._stream.encode(self._frame(piece))
            self._position += piece.shape[1]

    def rest(self) -> Iterator[Any]:
        """The packets that the encoder still holds."""
        yield from self._stream.encode(None)

    def _frame(self, samples: np.ndarray) -> Any:
        frame = pyav().AudioFrame.from_ndarray(
            samples.astype(np.float32) / 2**15, format="fltp", layout=self._stream.layout
        )
        frame.sample_rate, frame.pts, frame.time_base = self._sound.rate, self._position, Fraction(1, self._sound.rate)
        return frame
