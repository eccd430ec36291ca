"""Decodes a video's sound to PCM samples, aligned with its first frame, in an isolated process."""

import contextlib
import itertools
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16

from th_jax.media.containers import AUDIO_DECODERS, END_ERRORS, Source, best_stream, open_container
from th_jax.media.isolation import ProcessLimits, naming, run_limited, stream_limited
from th_jax.media.limits import DEFAULT_LIMITS, MediaError, MediaFault, check_file, no_memory
from th_jax.optional import pyav

RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Sample rates in Hz that AAC supports; sound with other rates is resampled to `_OTHER_RATE`."""

_OTHER_RATE = 48000

BLOCK = 2**15
"""Maximum number of samples per channel in a block."""

SOUND_LIMITS = ProcessLimits()
"""Limits of the process that decodes sound."""

_SLACK = Fraction(1, 10)
"""Maximum difference in seconds between sound and its timestamps that is ignored, because containers round timestamps."""

_QUIET = 3
"""Largest inaudible sample value, of 32767: encoders leave such traces in silence."""


class Sound(NamedTuple):
    """Sound with one or two channels and without gaps; the first sample belongs to the start of the first video frame."""

    rate: int
    """Sample rate in Hz, one of `RATES`."""
    channels: int
    """Number of channels, 1 or 2."""
    blocks: Generator[Int16[np.ndarray, "C n"], None, None]
    """All samples, in blocks of at most `BLOCK`; close the generator to stop early."""


def open_sound(path: str | Path) -> Sound:
    """Open the sound of a local video or audio file; memory use is constant.

    The decoder runs in an isolated process, and its answers are validated. Iterating over the blocks can raise
    MediaError too.

    Raises:
        MediaError: if the file cannot be read, or has no sound that can be decoded.
        ImportError: if the extra `video` is not installed.
    """
    checked = check_file(path, DEFAULT_LIMITS)
    items = stream_limited(decode_sound, str(checked), within=SOUND_LIMITS, most=2 * 2 * BLOCK)
    with ExitStack() as failing, naming(checked):
        failing.enter_context(closing(items))
        match next(items, None):
            case (int(rate), int(channels)) if rate in RATES and channels in (1, 2):
                failing.pop_all()
                return Sound(rate, channels, _checked(items, checked, channels))
        raise MediaError(MediaFault.UNDECODABLE, "its decoder process reported no audio")


def missing_sound(path: str | Path, *, seconds: float | None = None) -> str | None:
    """Return why a video has no audible sound, such as "is silent throughout", or None if it has.

    The headers decide if they can, and otherwise the first sound that is not silent, so that little of most videos is
    decoded. Runs in an isolated process.

    Args:
        path: local video.
        seconds: duration to check, from the start; all of the video by default.

    Raises:
        MediaError: if the file cannot be read, or its process fails.
        ImportError: if the extra `video` is not installed.
    """
    checked = check_file(path, DEFAULT_LIMITS)
    with naming(checked):
        reason = run_limited(find_missing_sound, str(checked), seconds=seconds, within=SOUND_LIMITS)
    return str(reason) if reason else None


def find_missing_sound(path: str, *, seconds: float | None) -> str:
    """Return the result of `missing_sound`, with "" for None; runs in a sandbox.

    Raises:
        MediaError: if the file cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    with ExitStack() as resources:
        container, source = open_container(Path(path), DEFAULT_LIMITS, resources)
        track = best_stream(container, "audio")
        if track is None:
            return "is missing"
        if (coding := _coding(track)) not in AUDIO_DECODERS:
            return f"uses the unsupported codec {coding}"
        decoded: Iterator[Any] = _samples(path, container, source)
        try:
            rate, _ = next(decoded)
        except MediaError as error:
            if error.fault is not MediaFault.UNDECODABLE:
                raise
            return "cannot be decoded"
        left = round(rate * (DEFAULT_LIMITS.seconds if seconds is None else seconds))
        for block in decoded:
            if np.abs(block[:, : max(0, left)].astype(np.int32)).max(initial=0) > _QUIET:
                return ""
            left -= block.shape[1]
            if left <= 0:
                break
        return "is entirely silent"


def _coding(track: Any) -> str:
    return "(unknown)" if track.codec_context is None else str(track.codec_context.name)


def _checked(
    items: Generator[Any, None, None], path: Path, channels: int
) -> Generator[Int16[np.ndarray, "C n"], None, None]:
    with naming(path), closing(items):
        for block in items:
            kind = (block.dtype, block.ndim, len(block)) if isinstance(block, np.ndarray) and block.size else None
            if kind != (np.int16, 2, channels):
                raise MediaError(MediaFault.UNDECODABLE, "its decoder process returned something other than audio")
            yield block


def decode_sound(path: str) -> Iterator[tuple[int, int] | Int16[np.ndarray, "C n"]]:
    """Yield the sample rate and the number of channels, then blocks of samples; `open_sound` runs it in another process.

    Missing or damaged sound is replaced by silence, so that the rest stays in sync with the video. Sound before the
    first video frame, or for a time that already has sound, is dropped.

    Raises:
        MediaError: if there is no sound that can be decoded.
        ImportError: if the extra `video` is not installed.
    """
    with ExitStack() as resources:
        yield from _samples(path, *open_container(Path(path), DEFAULT_LIMITS, resources))


def _samples(path: str, container: Any, source: Source) -> Iterator[tuple[int, int] | Int16[np.ndarray, "C n"]]:
    frames = _frames(path, container, source)
    first = next(frames, None)
    if first is None:
        raise MediaError(MediaFault.UNDECODABLE, f"{path} has audio that cannot be decoded: omit audio_from")
    rate = first[1].sample_rate if first[1].sample_rate in RATES else _OTHER_RATE
    channels = 1 if first[1].layout.nb_channels == 1 else 2
    yield rate, channels
    resampled = _Resampler(path, rate, channels)
    given = coming = 0  # samples yielded so far, and the next expected sample
    for time, frame in itertools.chain([first], frames):
        samples = resampled.of(frame)
        start = coming if time is None else round(time * rate)
        if given and abs(start - coming) <= _SLACK * rate:
            start = coming
        coming = start + samples.shape[1]
        for position in range(given, start, BLOCK):
            yield np.zeros((channels, min(BLOCK, start - position)), np.int16)
        samples = samples[:, max(0, given - start) :]
        for position in range(0, samples.shape[1], BLOCK):
            yield samples[:, position : position + BLOCK]
        given = max(given, coming)


def _frames(path: str, container: Any, source: Source) -> Iterator[tuple[Fraction | None, Any]]:
    """Yield all decodable frames of the best audio track, with seconds from the first video frame if known."""
    stream = best_stream(container, "audio")
    if stream is None:
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} has no audio track: omit audio_from")
    if (coding := _coding(stream)) not in AUDIO_DECODERS:
        allowed = "which is not supported: omit audio_from"
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} has an audio track with the codec {coding}, {allowed}")
    clock = best_stream(container, "video") or stream
    origin = Fraction((clock.start_time or 0) * (clock.time_base or 0))
    with _damage_left_out(path):
        for packet in container.demux(stream):
            decoded: list[Any] = []
            with _damage_left_out(path):
                decoded = packet.decode()
            for frame in decoded:
                time = None
                if frame.pts is not None and frame.time_base is not None:
                    time = frame.pts * frame.time_base - origin
                # Later times cannot be right, and the silence up to them would be endless.
                yield (time if time is None or abs(time) <= DEFAULT_LIMITS.seconds else None), frame
    if source.out_of_memory:  # PyAV mistook it for the end of the file or damage
        raise no_memory(path)


@contextlib.contextmanager
def _damage_left_out(path: str) -> Iterator[None]:
    damage = (pyav().error.FFmpegError, *END_ERRORS)
    try:
        yield
    except MemoryError as error:  # not damage: skipping this packet would be wrong
        raise no_memory(path) from error
    except damage:
        pass


class _Resampler:
    """Resamples frames, whose format may change within a track, to one format."""

    def __init__(self, path: str, rate: int, channels: int) -> None:
        self._path = path
        self._wanted = {"format": "s16p", "layout": "mono" if channels == 1 else "stereo", "rate": rate}
        self._kind: tuple[str, str, int] | None = None
        self._none = np.zeros((channels, 0), np.int16)

    def of(self, frame: Any) -> Int16[np.ndarray, "C n"]:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._kind, self._resampler = kind, pyav().AudioResampler(**self._wanted)
        pieces = [self._none]
        with _damage_left_out(self._path):
            pieces += [piece.to_ndarray() for piece in self._resampler.resample(frame)]
        return np.concatenate(pieces, axis=1)
