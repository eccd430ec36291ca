"""Encodes a stream of frames as H.264 in MP4, with the sound of another file."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from th_jax.media.audio import Sound, open_sound
from th_jax.optional import pyav
from th_jax.processor import processor_has

_BITS = 96_000
"""Bit rate of sound, in bits per second and channel."""

_BT709 = 1
"""FFmpeg's number for the BT.709 color matrix, primaries and transfer, and for the limited range of video."""


def encode_h264(
    target: Path, frames: Iterator[np.ndarray], *, rate: Fraction, crf: int, audio_from: Path | None
) -> None:
    """Encode UInt8 `[H, W, 3]` frames of one size as H.264.

    The target must be an absolute path. `audio_from` is a file whose sound is added.

    Raises:
        MediaError: if `audio_from` has no sound that can be decoded, or its process fails.
        OSError: if the file cannot be written.
    """
    av = pyav()
    with ExitStack() as resources:
        # The sound and the first frame are read before anything is written, because most errors occur there.
        sound = None if audio_from is None else open_sound(audio_from)
        if sound is not None:
            resources.enter_context(closing(sound.blocks))
        first = next(frames)
        output = resources.enter_context(av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}))
        height, width = first.shape[:2]
        image = _add_h264(output, width + width % 2, height + height % 2, rate, crf)
        track = None if sound is None else _SoundTrack(output, sound)
        for index, frame in enumerate(chain([first], frames)):
            output.mux(image.encode(_video_frame(frame, index, rate)))
            for packet in track.until((index + 1) / rate) if track is not None else ():
                output.mux(packet)
        output.mux(image.encode(None))
        for packet in track.rest() if track is not None else ():
            output.mux(packet)


def _add_h264(output: Any, width: int, height: int, rate: Fraction, crf: int) -> Any:
    stream = output.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"crf": str(crf), "preset": "medium"} | deterministic_x264()
    context = stream.codec_context
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709
    return stream


def deterministic_x264() -> dict[str, str]:
    """Return the options with which libx264 writes the same file each time.

    Multithreaded encoding is not deterministic, and does not speed up small frames. Nor is x264's macroblock tree with AVX-512
    instructions: 60 encodings of ten frames gave 20 different files. Where the processor has them, it uses AVX2.
    """
    return {"threads": "1"} | ({"x264-params": "asm=avx2"} if processor_has("avx512") else {})


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
    """A sound track encoded as AAC in step with the video, so that memory does not grow with its length."""

    def __init__(self, output: Any, sound: Sound) -> None:
        layout = "mono" if sound.channels == 1 else "stereo"
        self._stream = output.add_stream("aac", rate=sound.rate, layout=layout)
        # AAC cannot use more than 6 bits per sample.
        self._stream.bit_rate = sound.channels * min(_BITS, 6 * sound.rate)
        self._sound = sound
        self._waiting = np.zeros((sound.channels, 0), np.int16)
        self._position = 0

    def until(self, seconds: Fraction) -> Iterator[Any]:
        """Encode all samples up to this time, and yield the finished packets."""
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
        """Yield the packets that remain in the encoder."""
        yield from self._stream.encode(None)

    def _frame(self, samples: np.ndarray) -> Any:
        frame = pyav().AudioFrame.from_ndarray(
            samples.astype(np.float32) / 2**15, format="fltp", layout=self._stream.layout
        )
        frame.sample_rate, frame.pts, frame.time_base = self._sound.rate, self._position, Fraction(1, self._sound.rate)
        return frame
