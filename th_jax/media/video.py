"""Decodes the frames of a local video as displayed, at their actual times; frames affected by damage are left out."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from th_jax.media.color import Colors, deinterlaced, square_size, turn_of
from th_jax.media.containers import (
    END_ERRORS,
    Decoded,
    IntactFrames,
    clean_aperture,
    open_container,
    video_decoder,
    video_stream,
)
from th_jax.media.limits import Limits, MediaError, MediaFault, no_memory
from th_jax.optional import load_backend, pyav

_SEEK_AHEAD = 1.0
"""Minimum distance in seconds for which a seek is worthwhile in containers without a keyframe index."""

_EARLIER = (0.0, 0.5, 5.0)
"""Seconds by which a seek aims before its target: container indexes hold decoding times, which precede display times."""


class Video:
    """An open video; a context manager. Times are in seconds from the declared start of the video track."""

    path: Path
    size: tuple[int, int]
    """Width and height of the upright frames, in square pixels."""
    rotation: int
    """Counterclockwise rotation in degrees that brings the stored frames upright: 0, 90, 180 or 270."""
    mirrored: bool
    """Whether frames are then mirrored left to right, as videos of some front cameras declare."""
    fps: Fraction
    """Average frame rate, in frames per second; `frames` yields the actual times."""
    duration: float | None
    """Duration in seconds declared by the container, or None."""
    frame_count: int | None
    """Number of frames declared by the container, or None."""
    has_audio: bool
    damaged_frames: int
    """Number of frames left out so far: those that could not be decoded, and those after them up to a keyframe."""

    def __init__(self, path: Path, *, limits: Limits, threads: int = 1) -> None:
        """Open a file that `check_file` has accepted; use `open_video` instead."""
        self.path, self.damaged_frames = path, 0
        self._limits, self._threads, self._error = limits, threads, pyav().error.FFmpegError
        self._resources = ExitStack()
        self._colors = Colors(path, threads=threads)
        self._seekable = True
        self._begun: Iterator[Decoded] | None
        self._damaged_before: int
        try:
            self._open()
            self._describe()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Video":
        """Return the video itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the video."""
        self.close()

    def close(self) -> None:
        """Close the file and the decoder; further calls have no effect."""
        self._resources.close()

    def frames(self) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
        """Yield every intact frame from the start with its time, as RGB in 0..255; memory use is constant.

        Raises:
            MediaError: if the video exceeds the allowed number of frames or seconds.
        """
        for count, (time, frame) in enumerate(self._from_start()):
            if count >= self._limits.frames:
                raise MediaError(
                    MediaFault.OVER_LIMITS, f"{self.path} has more than {self._limits.frames} frames, the limit"
                )
            yield time, self._upright(frame)

    def frames_at(self, times: Iterable[float]) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
        """Yield the frame on screen at each of `times`, in ascending seconds, with the frame's own time.

        Times before the first frame give the first, and times after the last give the last, so that frames may repeat.
        Frames in between are skipped.

        Raises:
            ValueError: if the times are not ascending.
            MediaError: if the video exceeds the allowed seconds.
        """
        decoded = self._from_start()
        shown, coming = next(decoded, None), next(decoded, None)
        previous = -np.inf
        for wanted in times:
            if not wanted >= previous:
                raise ValueError(f"times must be ascending, but {wanted} follows {previous}")
            previous = wanted
            if coming is not None and self._keyframe_between(coming[0], wanted):
                shown, decoded = self._jump(wanted)
                coming = next(decoded, None)
            while coming is not None and coming[0] <= wanted:
                shown, coming = coming, next(decoded, None)
            if shown is None:
                raise self._no_frame()
            yield shown[0], self._upright(shown[1])

    def _from_start(self) -> Iterator[Decoded]:
        """Decode all frames; from the second call on the file is opened again, because some containers cannot be rewound."""
        begun, self._begun = self._begun, None
        if begun is None:
            self._open()
            return self._decode()
        self.damaged_frames, self._damaged_before = self._damaged_before, 0
        return begun

    def _open(self) -> None:
        self._begun, self._damaged_before = None, 0
        self._resources.close()
        with ExitStack() as resources:
            self._container, self._source = open_container(self.path, self._limits, resources)
            self._stream = video_stream(self.path, self._container, self._limits)
            self._decoder = video_decoder(self._stream)
            self._says_key = not self._decoder.name.startswith("libvpx")
            self._decoder.thread_count = self._threads
            # Each frame then refers to the packet that it was decoded from.
            self._decoder.flags |= load_backend("av.codec.context", "reading videos").Flags.copy_opaque
            self._decoder.options = {"max_pixels": str(self._limits.pixels)}
            self._resources = resources.pop_all()

    def _describe(self) -> None:
        stream, container, limits = self._stream, self._container, self._limits
        self.has_audio = bool(container.streams.audio)
        self.fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.frame_count = stream.frames or None
        self._start = float((stream.start_time or 0) * stream.time_base)
        if stream.duration is not None:
            self.duration = float(stream.duration * stream.time_base)
        else:
            self.duration = None if container.duration is None else container.duration / 1e6
        if self.duration is not None and self.duration > limits.seconds:
            lengths = f"{self.duration:.0f} s, over the limit of {limits.seconds:.0f} s"
            raise MediaError(MediaFault.OVER_LIMITS, f"{self.path} lasts {lengths}")
        if self.frame_count is not None and self.frame_count > limits.frames:
            counts = f"{self.frame_count} frames, over the limit of {limits.frames}"
            raise MediaError(MediaFault.OVER_LIMITS, f"{self.path} declares {counts}")
        decoded = self._decode()
        first = next(decoded, None)
        if first is None:
            raise self._no_frame()
        self._begun, self._damaged_before, self.damaged_frames = chain([first], decoded), self.damaged_frames, 0
        self._turn = turn_of(self.path, first[1])
        self.rotation, self.mirrored = 90 * self._turn.quarters, self._turn.mirrored
        self._stored = (first[1].width, first[1].height)
        of_boxes = "mov" in container.format.name
        self._seen = clean_aperture(self._source, stream.id, self._stored) if of_boxes else None
        square = square_size(self.path, self._stored, self._pixel_aspect(), limits)
        width, height = square if self._seen is None else self._seen.enlarged(self._stored, square)[2:]
        self.size = (height, width) if self._turn.quarters % 2 else (width, height)

    def _decode(self) -> Iterator[Decoded]:
        return deinterlaced(self.path, self._intact(), threads=self._threads)

    def _intact(self) -> Iterator[Decoded]:
        intact, packets, time = IntactFrames(), self._packets(), -1.0 / self.fps
        for number, packet in enumerate(packets):
            # PyAV distinguishes these by identity, and small integers are shared.
            packet.opaque = (number, packet.is_keyframe and not self._says_key)
            intact.sent(number)
            try:
                frames = self._decoder.decode(packet)
            except MemoryError as error:  # not damage: skipping this packet would be wrong
                raise no_memory(self.path) from error
            except self._error:
                self.damaged_frames += intact.failed(number)
                continue
            for frame in frames:
                time = time + 1.0 / self.fps if frame.pts is None else float(frame.pts * frame.time_base) - self._start
                if time > self._limits.seconds:
                    seconds = f"{self._limits.seconds:.0f} s"
                    raise MediaError(MediaFault.OVER_LIMITS, f"{self.path} lasts longer than {seconds}, the limit")
                source, key = frame.opaque or (number, False)
                self.damaged_frames += intact.received(source, (float(time), frame), key=key)
            yield from intact.ready()
        yield from intact.rest()

    def _packets(self) -> Iterator[Any]:
        """Yield packets up to where the container itself is damaged or truncated, after which nothing can be found."""
        try:
            yield from self._container.demux(self._stream)
        except MemoryError as error:
            raise no_memory(self.path) from error
        except END_ERRORS:
            pass
        except self._error as error:
            if self._source.out_of_memory:
                raise no_memory(self.path) from error
            self.damaged_frames += 1
        if self._source.out_of_memory:
            raise no_memory(self.path)

    def _jump(self, wanted: float) -> tuple[Decoded | None, Iterator[Decoded]]:
        """Seek to the last keyframe at or before a time; returns its frame, and the frames that follow it."""
        for earlier in _EARLIER:
            try:
                offset = int((wanted - earlier + self._start) / self._stream.time_base)
                self._container.seek(offset, stream=self._stream)
                self._decoder.flush_buffers()
            except self._error:
                break
            decoded = self._decode()
            landed = next(decoded, None)
            if landed is not None and landed[0] <= wanted:
                return landed, decoded
        self._seekable = False  # cannot seek, or the index is wrong: decode sequentially from here on
        self._open()
        decoded = self._decode()
        return next(decoded, None), decoded

    def _keyframe_between(self, position: float, wanted: float) -> bool:
        """Return whether seeking to the wanted time saves decoding."""
        if not self._seekable or wanted <= position:
            return False
        index = self._stream.index_entries
        if not len(index):
            return bool(wanted - position > _SEEK_AHEAD)
        entry = index.search_timestamp(int((wanted + self._start) / self._stream.time_base))
        if entry < 0:
            return False
        return bool(float(index[entry].timestamp * self._stream.time_base) - self._start > position)

    def _upright(self, frame: Any) -> UInt8[np.ndarray, "H W 3"]:
        stored = (frame.width, frame.height)
        size = square_size(self.path, stored, self._pixel_aspect(), self._limits)
        try:
            image = self._colors.rgb(frame, size)
            if self._seen is not None and stored == self._stored:
                left, top, width, height = self._seen.enlarged(stored, size)
                image = image[top : top + height, left : left + width]
            return self._turn.of(image)
        except MemoryError as error:
            raise no_memory(self.path) from error

    def _pixel_aspect(self) -> Fraction | None:
        declared = self._stream.sample_aspect_ratio  # None, a Fraction, or from PyAV 19 on 0/1 and PyAV's own numbers
        return Fraction(declared.numerator, declared.denominator) if declared and declared.denominator else None

    def _no_frame(self) -> MediaError:
        return MediaError(MediaFault.UNDECODABLE, f"{self.path} has no decodable frame: it is damaged or truncated")
