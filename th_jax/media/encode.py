"""Encodes a stream of frames as H.264 in MP4, with the sound of another file beside them."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from th_jax.media.backends import pyav
from th_jax.media.containers import open_container
from th_jax.media.limits import DEFAULT_LIMITS, MediaError, MediaFault, check_file

_COPIED_AUDIO = ("aac", "mp3", "mp3float", "ac3", "eac3", "alac")
"""What MP4 players take as it is; other sound becomes AAC."""

_BT709 = 1
"""FFmpeg's number for the colour matrix, primaries and transfer of BT.709, and for video's narrow range."""


def encode_h264(
    target: Path, frames: Iterator[np.ndarray], *, rate: Fraction, crf: int, audio_from: Path | None
) -> None:
    """Write UInt8 `[H, W, 3]` frames of one size to `target`, which must be an absolute path.

    Raises:
        MediaError: if `audio_from` has no sound.
        OSError: if the disk refuses.
    """
    av = pyav()
    with ExitStack() as resources:
        # The sound is opened and the first frame taken before anything is written: most errors show here.
        sound = None if audio_from is None else _open_sound(audio_from, resources)
        first = next(frames)
        output = resources.enter_context(av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}))
        height, width = first.shape[:2]
        picture = _add_h264(output, width + width % 2, height + height % 2, rate, crf)
        packets = iter(()) if sound is None else _sound_packets(output, *sound)
        waiting = next(packets, None)
        for index, frame in enumerate(_chain(first, frames)):
            output.mux(picture.encode(_video_frame(frame, index, rate)))
            # Sound keeps pace with the pictures, so that a film of hours needs no more memory than one of seconds.
            while waiting is not None and waiting[0] <= (index + 1) / rate:
                output.mux(waiting[1])
                waiting = next(packets, None)
        output.mux(picture.encode(None))


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _add_h264(output: Any, width: int, height: int, rate: Fraction, crf: int) -> Any:
    stream = output.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"crf": str(crf), "preset": "medium"}
    context = stream.codec_context
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


def _open_sound(path: Path, resources: ExitStack) -> tuple[Any, Any]:
    container = open_container(check_file(path, DEFAULT_LIMITS), DEFAULT_LIMITS, resources)
    if not container.streams.audio:
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} holds no sound to keep: leave audio_from out")
    return container, container.streams.audio[0]


def _sound_packets(output: Any, container: Any, source: Any) -> Iterator[tuple[float, Any]]:
    """The sound's packets for the output, each with its time in seconds from the first picture of their source."""
    clock = container.streams.video[0] if container.streams.video else source
    start = Fraction((clock.start_time or 0) * clock.time_base)
    # The output's stream must exist before the first packet is written: hence no generator here.
    if source.codec_context.name in _COPIED_AUDIO:
        return _copied_packets(output.add_stream_from_template(source), container, source, start)
    layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
    stream = output.add_stream("aac", rate=source.codec_context.sample_rate, layout=layout)
    return _encoded_packets(stream, container, source, start)


def _copied_packets(stream: Any, container: Any, source: Any, start: Fraction) -> Iterator[tuple[float, Any]]:
    shift = round(start / source.time_base)
    for packet in _readable(container.demux(source)):
        if packet.dts is None or packet.pts is None or packet.is_corrupt:
            continue
        packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
        yield float(packet.pts * packet.time_base), packet


def _encoded_packets(stream: Any, container: Any, source: Any, start: Fraction) -> Iterator[tuple[float, Any]]:
    context = stream.codec_context
    resampler = pyav().AudioResampler(format="fltp", layout=context.layout, rate=context.sample_rate)
    position: int | None = None
    for packet in _readable(container.demux(source)):
        for frame in _decoded(packet):
            if position is None:
                position = (
                    0 if frame.pts is None else round((frame.pts * frame.time_base - start) * context.sample_rate)
                )
            for piece in resampler.resample(frame):
                piece.pts, piece.time_base = position, Fraction(1, context.sample_rate)
                position += piece.samples
                for encoded in stream.encode(piece):
                    yield float(encoded.pts * encoded.time_base), encoded
    for encoded in stream.encode(None):
        yield float(encoded.pts * encoded.time_base), encoded


def _readable(packets: Iterator[Any]) -> Iterator[Any]:
    """The packets up to where the file is cut off."""
    with suppress(pyav().error.FFmpegError):
        yield from packets


def _decoded(packet: Any) -> list[Any]:
    """The frames of a packet; none of a damaged one."""
    try:
        return packet.decode()
    except pyav().error.FFmpegError:
        return []
