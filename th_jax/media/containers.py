"""Opens a local video by allow-lists of demuxers and decoders, with no way to a second file or a network."""

import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from th_jax.media.backends import load_backend, pyav
from th_jax.media.limits import Limits, MediaError, MediaFault, check_pixels

DEMUXERS = ("mov", "mp4", "matroska", "webm", "avi", "gif", "mpeg", "mpegts", "ogg", "flv")
"""FFmpeg's names of the container formats that may be read."""

VIDEO_DECODERS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg1video", "mpeg2video"),
    *("mjpeg", "gif", "theora", "h263", "msmpeg4v2", "msmpeg4v3", "wmv2", "flv", "prores", "dvvideo", "ffv1", "png"),
)
AUDIO_DECODERS = (
    *("aac", "mp3", "mp3float", "mp2", "mp2float", "ac3", "eac3", "opus", "libopus", "vorbis", "libvorbis", "flac"),
    *("alac", "amrnb", "amrwb"),
    # Samples as they are, or four bits each by a table: small decoders without state that a file could lead astray.
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
"""FFmpeg's names of the decoders that may run; others are never opened, whatever a file asks for."""

_KNOWING_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these leave transparency out."""

DEMUX_ERRORS = (IndexError,)
"""What PyAV raises beside its own errors at the end of a file in which streams have come to light on the way."""


class Source(io.BufferedReader):
    """A file that remembers that memory ran out while it was read: PyAV drops that exception, and sees the file's end."""

    out_of_memory = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Bytes, as of any file."""
        try:
            return super().read(size)
        except MemoryError:
            self.out_of_memory = True
            raise


def open_container(path: Path, limits: Limits, resources: ExitStack) -> tuple[Any, Source]:
    """PyAV's input container of a file that `check_file` has passed, and the file it reads; `resources` closes both.

    Raises:
        MediaError: if it cannot be opened as one of the allowed formats.
    """
    av = pyav()
    options = {
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(VIDEO_DECODERS + AUDIO_DECODERS),
        "max_pixels": str(limits.pixels),
    }
    # Titles in old encodings are no reason to refuse a film; from PyAV 19 on, they never are one.
    lenient = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    file: Source | None = None
    try:
        # PyAV is given an open file, never a name: so no name can select a network protocol.
        file = resources.enter_context(Source(path.open("rb", buffering=0)))
        container = av.open(file, "r", options=options, io_open=_refuse_other_files, **lenient)
        return resources.enter_context(container), file
    except PermissionError as error:
        raise MediaError(MediaFault.UNREADABLE, f"{path} cannot be read: permission denied") from error
    except (OSError, ValueError, MemoryError, av.error.FFmpegError) as error:
        if isinstance(error, MemoryError) or (file is not None and file.out_of_memory):
            raise MediaError(MediaFault.OVER_LIMITS, f"{path} needs more memory than there is") from error
        raise MediaError(
            MediaFault.UNDECODABLE,
            f"{path} is no video that can be read, or it is cut off (MP4, MOV, MKV, WebM, AVI, GIF, MPEG, OGV or FLV)",
        ) from error


def best_stream(container: Any, kind: Literal["video", "audio"]) -> Any:
    """The track that FFmpeg's tools would play: the one that is marked as default, else the richest; None without any.

    `av_find_best_stream` decides for both kinds, sound by what goes with the picture. A cover is no moving picture.
    """
    if kind == "audio":
        best = container.streams.best("audio", related=best_stream(container, "video"))
        # Of a codec that is not allowed, nothing but its name may be known, and FFmpeg takes no such track.
        return best or next(iter(container.streams.audio), None)
    cover = load_backend("av.stream", "reading videos").Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


def video_stream(path: Path, container: Any, limits: Limits) -> Any:
    """The container's best moving picture (`best_stream`), of an allowed decoder and size.

    Raises:
        MediaError: if there is none, or its decoder or its declared size is not allowed.
    """
    stream = best_stream(container, "video")
    if stream is None:
        content = "only sound" if container.streams.audio else "no video stream"
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} holds {content}")
    context = stream.codec_context
    if context is None or context.name not in VIDEO_DECODERS:
        coding = "an unknown codec" if context is None else context.name
        raise MediaError(
            MediaFault.UNSUPPORTED,
            f"{path} is coded as {coding}, which is not among the decoders that are allowed here",
        )
    if not (context.width and context.height):  # FFmpeg forgets a size that it refuses
        raise MediaError(
            MediaFault.UNDECODABLE, f"{path} declares no size, or one over the limit of {limits.pixels} pixels"
        )
    check_pixels(path, context.width, context.height, limits)
    return stream


def video_decoder(stream: Any) -> Any:
    """The decoder of an allowed stream: FFmpeg's choice, but of VP8 and VP9 with transparency the one that knows it."""
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") != "1" or context.name not in _KNOWING_ALPHA:
        return context
    knowing = pyav().CodecContext.create(_KNOWING_ALPHA[context.name], "r")
    knowing.extradata = context.extradata
    return knowing


def _refuse_other_files(url: str, *_: Any) -> None:
    """Stands where FFmpeg would open what a container refers to."""
    raise PermissionError(f"the video refers to another file, which is never opened: {url}")
