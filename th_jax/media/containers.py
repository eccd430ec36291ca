"""Opens local video files with allowed demuxers and decoders only, and filters out frames affected by damage.

Neither other files nor networks can be reached from a file. The module also reads the clean aperture of MP4 files.
"""

import io
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

from th_jax.media.limits import Limits, MediaError, MediaFault, check_pixels, no_memory
from th_jax.optional import load_backend, pyav

_MAX_BOXES = 4096
"""Maximum number of child boxes read in a box. Real videos have a few dozen."""

_ENTRY = 78
"""Length in bytes of a visual sample entry before its child boxes."""


class Aperture(NamedTuple):
    """A rectangle of a stored frame, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def enlarged(self, size: tuple[int, int], other: tuple[int, int]) -> "Aperture":
        """Scale the rectangle with a frame that was resized from one size (width, height) to another."""
        x, y = Fraction(other[0], size[0]), Fraction(other[1], size[1])
        left, top = round(self.left * x), round(self.top * y)
        return Aperture(
            left, top, round((self.left + self.width) * x) - left, round((self.top + self.height) * y) - top
        )


def clean_aperture(file: io.BufferedIOBase, track: int, size: tuple[int, int]) -> Aperture | None:
    """Read the clean aperture of a track: the visible part of its frames.

    `file` is the open file, which a demuxer may be reading: its position is the same afterwards. `size` is the width and
    height of the stored frames.

    Returns:
        The rectangle, or None if the file declares none, the whole frame, or an impossible one.
    """
    before = file.tell()
    try:
        end = file.seek(0, io.SEEK_END)
        for trak in _boxes(file, [(0, end)], b"moov", b"trak"):
            if _track_number(file, trak) != track:
                continue
            for start, stop in _boxes(file, [trak], b"mdia", b"minf", b"stbl", b"stsd"):
                for _, (entry, entry_end) in _inside(file, start + 8, stop):
                    for place, _ in _boxes(file, [(entry + _ENTRY, entry_end)], b"clap"):
                        file.seek(place)
                        return _aperture(file.read(32), size)
    finally:
        file.seek(before)
    return None


def _aperture(box: bytes, size: tuple[int, int]) -> Aperture | None:
    if len(box) < 32:
        return None
    parts = struct.unpack(">2I2I4i", box)
    if 0 in parts[1::2]:
        return None
    width, height, right, down = (Fraction(parts[i], parts[i + 1]) for i in (0, 2, 4, 6))
    left, top = (size[0] - width) / 2 + right, (size[1] - height) / 2 + down
    seen = Aperture(round(left), round(top), round(width), round(height))
    fits = seen.left >= 0 and seen.top >= 0 and seen.left + seen.width <= size[0] and seen.top + seen.height <= size[1]
    if not fits or seen.width < 1 or seen.height < 1 or seen[2:] == size:
        return None
    return seen


def _track_number(file: io.BufferedIOBase, trak: tuple[int, int]) -> int | None:
    for start, _ in _boxes(file, [trak], b"tkhd"):
        file.seek(start)
        head = file.read(24)
        place = 20 if head[:1] == b"\1" else 12
        return int.from_bytes(head[place : place + 4])
    return None


def _boxes(file: io.BufferedIOBase, spans: list[tuple[int, int]], *kinds: bytes) -> list[tuple[int, int]]:
    """Return the byte ranges of the contents of all boxes reached through this sequence of box types."""
    for kind in kinds:
        spans = [inner for span in spans for found, inner in _inside(file, *span) if found == kind]
    return spans


def _inside(file: io.BufferedIOBase, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield the boxes between two file positions: their types, and the byte ranges of their contents."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        length, header = int.from_bytes(head[:4]), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16]), 16
        elif length == 0:  # extends to the end
            length = end - start
        if length < header:
            return
        yield head[4:8], (start + header, min(start + length, end))
        start += length


DEMUXERS = ("mov", "mp4", "matroska", "webm", "avi", "gif", "mpeg", "mpegts", "ogg", "flv")
"""FFmpeg's names of the allowed container formats."""

VIDEO_DECODERS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg1video", "mpeg2video"),
    *("mjpeg", "gif", "theora", "h263", "msmpeg4v2", "msmpeg4v3", "wmv2", "flv", "prores", "dvvideo", "ffv1", "png"),
)

AUDIO_DECODERS = (
    *("aac", "mp3", "mp3float", "mp2", "mp2float", "ac3", "eac3", "opus", "libopus", "vorbis", "libvorbis", "flac"),
    *("alac", "amrnb", "amrwb"),
    # Uncompressed samples, or four bits each by a table: small, stateless decoders with little attack surface.
    *("pcm_u8", "pcm_u16le", "pcm_u16be", "pcm_u24le", "pcm_u24be", "pcm_u32le", "pcm_u32be", "pcm_alaw", "pcm_mulaw"),
    *("pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_s64le", "pcm_s64be"),
    *(
        "pcm_f16le",
        "pcm_f24le",
        "pcm_f32le",
        "pcm_f32be",
        "pcm_f64le",
        "pcm_f64be",
        "pcm_bluray",
        "pcm_dvd",
        "pcm_vidc",
    ),
    *("pcm_s8_planar", "pcm_s16le_planar", "pcm_s16be_planar", "pcm_s24le_planar", "pcm_s32le_planar"),
    *("adpcm_ima_wav", "adpcm_ima_qt", "adpcm_ms", "adpcm_swf", "adpcm_yamaha"),
)
"""FFmpeg's names of the allowed decoders; no other decoder is ever opened, whatever a file declares."""

_KNOWING_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's native decoders for these ignore transparency."""

END_ERRORS = (IndexError,)
"""Raised by PyAV before 19 at the end of a file in which streams appeared late, after the last packet: nothing is lost."""


class Source(io.BufferedReader):
    """A file that records running out of memory during a read; PyAV hides that exception and sees the end of the file."""

    out_of_memory = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does."""
        try:
            return super().read(size)
        except MemoryError:
            self.out_of_memory = True
            raise


def open_container(path: Path, limits: Limits, resources: ExitStack) -> tuple[Any, Source]:
    """Open a file that `check_file` has accepted as a PyAV input container.

    `resources` closes the container and the file.

    Returns:
        The container, and the file that it reads from.

    Raises:
        MediaError: if the file cannot be opened as one of the allowed formats.
    """
    av = pyav()
    options = {
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(VIDEO_DECODERS + AUDIO_DECODERS),
        "max_pixels": str(limits.pixels),
    }
    # Titles in old encodings must not make a video unreadable; from PyAV 19 on, they never do.
    lenient = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    file: Source | None = None
    try:
        # PyAV gets an open file, never a name, so that no name can select a network protocol.
        file = resources.enter_context(Source(path.open("rb", buffering=0)))
        container = av.open(file, "r", options=options, io_open=_reject_other_files, **lenient)
        return resources.enter_context(container), file
    except PermissionError as error:
        raise MediaError(MediaFault.UNREADABLE, f"{path} cannot be read: permission denied") from error
    except (OSError, ValueError, MemoryError, av.error.FFmpegError) as error:
        if isinstance(error, MemoryError) or (file is not None and file.out_of_memory):
            raise no_memory(path) from error
        raise MediaError(
            MediaFault.UNDECODABLE,
            f"{path} is not a readable video, or it is truncated (supported: MP4, MOV, MKV, WebM, AVI, GIF, MPEG, "
            "OGV and FLV)",
        ) from error


def best_stream(container: Any, kind: Literal["video", "audio"]) -> Any:
    """Return the track that FFmpeg's tools would play: the default track, or else the best one; None without any.

    `av_find_best_stream` selects both kinds, and the audio track that belongs to the video. Cover images do not count
    as video.
    """
    if kind == "audio":
        best = container.streams.best("audio", related=best_stream(container, "video"))
        # FFmpeg does not select tracks with disallowed codecs, of which only the name may be known.
        return best or next(iter(container.streams.audio), None)
    cover = load_backend("av.stream", "reading videos").Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


def video_stream(path: Path, container: Any, limits: Limits) -> Any:
    """Return the container's best video track (`best_stream`), with an allowed decoder and size.

    Raises:
        MediaError: if there is none, or its decoder or declared size is not allowed.
    """
    stream = best_stream(container, "video")
    if stream is None:
        content = "only audio" if container.streams.audio else "no video track"
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} contains {content}")
    context = stream.codec_context
    if context is None or context.name not in VIDEO_DECODERS:
        coding = "(unknown)" if context is None else context.name
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} uses the codec {coding}, which is not supported")
    if not (context.width and context.height):  # FFmpeg drops a size that it rejects
        raise MediaError(
            MediaFault.UNDECODABLE, f"{path} declares no frame size, or one over the limit of {limits.pixels} pixels"
        )
    check_pixels(path, context.width, context.height, limits)
    return stream


def video_decoder(stream: Any) -> Any:
    """Create the decoder of an allowed stream: FFmpeg's default, or one with transparency for VP8 and VP9 that need it."""
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") != "1" or context.name not in _KNOWING_ALPHA:
        return context
    knowing = pyav().CodecContext.create(_KNOWING_ALPHA[context.name], "r")
    knowing.extradata = context.extradata
    return knowing


def _reject_other_files(url: str, *_: Any) -> None:
    """Reject any file that FFmpeg would open because a container refers to it."""
    raise PermissionError(f"the video refers to another file, which is not allowed: {url}")


Decoded = tuple[float, Any]
"""The time of a frame in seconds, and PyAV's frame before conversion to RGB."""

_REORDERED = 16
"""Maximum number of frames decoded later but shown earlier than a frame (H.264 and HEVC allow 16)."""


class IntactFrames:
    """Filters out damaged frames: takes packets, numbered in decoding order, and their frames in display order."""

    def __init__(self) -> None:
        """Start without any packets."""
        self._damaged: int | None = None  # earliest damaged packet since the last displayed keyframe
        self._awaited: set[int] = set()  # packets whose frames have not arrived
        self._held: deque[tuple[int, Decoded]] = deque()  # frames waiting for earlier packets in decoding order

    def sent(self, packet: int) -> None:
        """Record that a packet was sent to the decoder."""
        self._awaited.add(packet)
        # Some packets produce no frame: those that are too old must not block later frames.
        self._awaited.discard(packet - _REORDERED)

    def failed(self, packet: int) -> int:
        """Record that the decoder rejected a packet; returns the number of frames dropped because of it."""
        self._awaited.discard(packet)
        return 1 + self._damage(packet)

    def received(self, packet: int, decoded: Decoded, *, key: bool = False) -> int:
        """Record a packet's frame from the decoder; returns the number of frames dropped because of it.

        `key` marks a frame that depends on no other, for decoders that do not flag it in the frame.
        """
        self._awaited.discard(packet)
        frame = decoded[1]
        if frame.is_corrupt:
            return 1 + self._damage(packet)
        if self._damaged is not None and packet > self._damaged:
            if not (frame.key_frame or key):
                return 1
            self._damaged = None
        self._held.append((packet, decoded))
        return 0

    def ready(self) -> Iterator[Decoded]:
        """Yield the frames that cannot be affected by damage any more, because all earlier packets are decoded."""
        while self._held and not any(awaited < self._held[0][0] for awaited in self._awaited):
            yield self._held.popleft()[1]

    def rest(self) -> Iterator[Decoded]:
        """Yield all remaining frames, after the decoder has finished."""
        while self._held:
            yield self._held.popleft()[1]

    def _damage(self, packet: int) -> int:
        """Record damage; returns the number of dropped frames, which were held and decoded after it."""
        self._damaged = packet if self._damaged is None else min(packet, self._damaged)
        kept = deque(entry for entry in self._held if entry[0] < packet)
        dropped = len(self._held) - len(kept)
        self._held = kept
        return dropped
