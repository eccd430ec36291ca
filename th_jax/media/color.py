"""Applies what a video declares about its frames: interlacing, display matrix, pixel aspect ratio, colors and transparency.

Frames are returned as a player shows them, in sRGB. Ordinary videos, which declare nothing special, cost no extra time:
FFmpeg's scaler handles their color matrix and range itself.
"""

import functools
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from th_jax.media.containers import Decoded
from th_jax.media.limits import Limits, MediaError, MediaFault, check_pixels, no_memory
from th_jax.optional import load_backend, pyav


class FilterGraph:
    """A chain of FFmpeg filters for frames like a given one: push frames in, pull frames out."""

    def __init__(
        self, frame: Any, filters: list[tuple[str, dict[str, Any]]], *, threads: int, beside: Any = None
    ) -> None:
        """Build the chain; a filter with a second input receives the frame `beside` there, repeated endlessly."""
        graph = load_backend("av.filter", "reading videos").Graph()
        graph.threads = threads
        self._graph = graph  # the filters do not keep it alive
        self._first = last = _source(graph, frame)
        for name, options in filters:
            following = graph.add(name, ":".join(f"{option}={value}" for option, value in options.items()))
            last.link_to(following)
            if len(following.inputs) > 1:
                second = _source(graph, beside)
                second.link_to(following, 0, 1)
            last = following
        self._last = graph.add("buffersink")
        last.link_to(self._last)
        graph.configure()
        if beside is not None:
            second.push(beside)
            second.push(None)

    def push(self, frame: Any) -> None:
        """Push a frame, or None after the last one."""
        self._first.push(frame)

    def pull(self) -> Any:
        """Pull the next frame.

        Raises PyAV's BlockingIOError if more input is needed, and its EOFError after the last frame.
        """
        return self._last.pull()


def _source(graph: Any, frame: Any) -> Any:
    return graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base or Fraction(1, 1000)
    )


PQ, HLG = 16, 18
"""Transfer characteristics, as numbered in ITU-T H.273."""

BT709, BT2020, DCI_P3, DISPLAY_P3 = 1, 9, 11, 12
"""Color primaries, as numbered in ITU-T H.273."""

_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))

_PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    **{DCI_P3: _P3, DISPLAY_P3: _P3},
}
"""CIE x, y of red, green and blue. White is D65 for all: the white of cinemas is shown as a display's white."""

_WHITE = (0.3127, 0.3290)

_DISPLAY = 2.4
"""Exponent of the BT.1886 display transfer function."""

_HDR_WHITE, _PQ_PEAK, _HLG_PEAK = 203.0, 10000.0, 1000.0
"""Luminance in cd/m2."""

LEVEL = 8
"""Level of the Hald CLUT in FFmpeg's sense: a cube whose side is the square of the level."""


def needs_table(transfer: int, primaries: int) -> bool:
    """Return whether videos with these H.273 values need color conversion by a lookup table.

    Primaries of standard definition and unknown ones count as BT.709, and all SDR transfers as equal, as in players.
    """
    return transfer in (PQ, HLG) or primaries in (BT2020, DCI_P3, DISPLAY_P3)


@functools.cache
def hald_table(transfer: int, primaries: int) -> UInt16[np.ndarray, "512 512 3"]:
    """Compute the lookup table for FFmpeg's haldclut filter: 16-bit RGB for every signal, with red changing fastest."""
    steps = np.linspace(0.0, 1.0, LEVEL**2)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    light = _light(np.stack([red, green, blue], -1), transfer)
    unknown = BT2020 if transfer in (PQ, HLG) else BT709
    source = _to_xyz(primaries if primaries in _PRIMARIES else unknown)
    light = np.clip(light @ np.linalg.solve(_to_xyz(BT709), source).T, 0.0, 1.0)
    return np.round(65535 * light ** (1 / _DISPLAY)).astype(np.uint16).reshape(LEVEL**3, LEVEL**3, 3)


def _light(signal: Float[np.ndarray, "... 3"], transfer: int) -> Float[np.ndarray, "... 3"]:
    """Convert signals in [0, 1] to display light relative to white."""
    if transfer == PQ:
        root = signal ** (32 / 2523)
        power = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
        return _PQ_PEAK / _HDR_WHITE * power ** (16384 / 2610)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        luminance = scene @ _to_xyz(BT2020)[1]
        return _HLG_PEAK / _HDR_WHITE * scene * luminance[..., None] ** 0.2
    return signal**_DISPLAY


def _to_xyz(primaries: int) -> Float[np.ndarray, "3 3"]:
    """Compute the matrix from linear RGB, as column vectors, to CIE XYZ."""
    x, y = np.array([*_PRIMARIES[primaries], _WHITE]).T
    directions = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return directions[:, :3] * np.linalg.solve(directions[:, :3], directions[:, 3])


def deinterlaced(path: Path, decoded: Iterator[Decoded], *, threads: int) -> Iterator[Decoded]:
    """Deinterlace frames that are flagged as interlaced with FFmpeg's bwdif; other frames and all times are unchanged.

    The filter uses the neighboring frames. A frame is therefore slightly different if decoding starts at it. Up to the
    first interlaced frame nothing is filtered, at no cost. The path is for error messages.

    Raises:
        MediaError: if the filter rejects a frame, or memory runs out.
    """
    graph: FilterGraph | None = None
    kind: tuple[int, int, str] | None = None
    waiting: deque[float] = deque()  # times of the frames in the filter
    for time, frame in decoded:
        if graph is None and not frame.interlaced_frame:
            yield time, frame
            continue
        described = (frame.width, frame.height, frame.format.name)
        if graph is None or kind != described:
            if graph is not None:
                yield from _through(path, graph, None, waiting)
            kind = described
            graph = FilterGraph(frame, [("bwdif", {"mode": "send_frame", "deint": "interlaced"})], threads=threads)
        waiting.append(time)
        yield from _through(path, graph, frame, waiting)
    if graph is not None:
        yield from _through(path, graph, None, waiting)


def _through(path: Path, graph: FilterGraph, frame: Any, waiting: deque[float]) -> list[Decoded]:
    """Push a frame, or None after the last, and return the finished frames: one for each input frame, in the same order."""
    av = pyav()
    ready: list[Decoded] = []
    try:
        graph.push(frame)
        while waiting:
            ready.append((waiting[0], graph.pull()))
            waiting.popleft()
    except (av.error.BlockingIOError, av.error.EOFError):
        pass
    except MemoryError as error:
        raise no_memory(path) from error
    except av.error.FFmpegError as error:
        raise MediaError(
            MediaFault.UNDECODABLE, f"{path} has interlaced frames that cannot be converted: {error}"
        ) from error
    return ready


_WIDEST_PIXEL = 16
"""Maximum ratio of pixel width to height, or its inverse; cameras and broadcasts stay below 4."""

_STRAIGHT = 0.02
"""Share of a display matrix's largest entry below which an entry counts as zero: about one degree."""


class Turn(NamedTuple):
    """How stored frames are oriented for display: rotated by quarter turns, then mirrored."""

    quarters: int
    """Counterclockwise quarter turns, 0 to 3."""
    mirrored: bool
    """Whether frames are mirrored left to right."""

    def of(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return the frame as displayed, contiguous in memory."""
        turned = np.rot90(frame, self.quarters)
        turned = turned[:, ::-1] if self.mirrored else turned
        # NumPy considers a view with one column contiguous, whatever its strides; dlib does not.
        return turned if turned.strides == (3 * turned.shape[1], 3, 1) else turned.copy()


def turn_of(path: Path, frame: Any) -> Turn:
    """Return the orientation given by the display matrix of a PyAV frame; the identity if there is none, or one of zeros.

    Raises:
        MediaError: if the matrix is not one of the eight that keep the frame's edges horizontal and vertical.
    """
    side_data = load_backend("av.sidedata.sidedata", "reading videos")
    declared = frame.side_data.get(side_data.Type.DISPLAYMATRIX)
    if declared is None or declared.buffer_size < 36:
        return Turn(0, mirrored=False)
    # FFmpeg's layout: x' = a x + c y, y' = b x + d y, with y pointing down.
    a, b, _, c, d = (int(number) for number in np.frombuffer(declared, np.int32)[:5])
    if not any((a, b, c, d)):
        return Turn(0, mirrored=False)
    small = _STRAIGHT * max(abs(a), abs(b), abs(c), abs(d))
    if not (
        (abs(b) <= small and abs(c) <= small < min(abs(a), abs(d)))
        or (abs(a) <= small and abs(d) <= small < min(abs(b), abs(c)))
    ):
        degrees = f"about {math.degrees(math.atan2(b, a)):.0f} degrees" if a * d != b * c else "a singular matrix"
        raise MediaError(
            MediaFault.UNSUPPORTED,
            f"{path} declares rotated or sheared frames ({degrees} clockwise), but only quarter turns and "
            "mirroring are supported: rotate it with a video editor and save it again",
        )
    mirrored = a * d - b * c < 0
    if mirrored:
        a = -a
    # Direction of the frame's x axis: right, up, left or down.
    return Turn((0 if a > 0 else 2) if abs(a) > small else (3 if b > 0 else 1), mirrored=mirrored)


def square_size(path: Path, size: tuple[int, int], aspect: Fraction | None, limits: Limits) -> tuple[int, int]:
    """Compute the width and height of a frame after conversion to square pixels, by enlarging one direction.

    `aspect` is the width of a pixel over its height; None or not positive if undeclared. The path is for error
    messages.

    Raises:
        MediaError: if the aspect ratio is implausible, or the frame becomes too large.
    """
    if aspect is None or aspect <= 0 or aspect == 1:
        return size
    if not Fraction(1, _WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL:
        raise MediaError(
            MediaFault.UNSUPPORTED,
            f"{path} declares an implausible pixel aspect ratio of {float(aspect):g}: save it again with square pixels",
        )
    width, height = size
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    check_pixels(path, *size, limits)
    return size


class Colors:
    """Converts PyAV frames to RGB by the colors that each declares; expensive setup is reused between frames."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Initialize; `path` is for error messages, `threads` is FFmpeg's thread count, with 0 for its own choice."""
        self._path, self._threads = path, threads
        self._known: tuple | None = None
        self._graph: Any = None

    def rgb(self, frame: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
        """Convert a frame to sRGB in 0..255 at the given width and height, composited over white where transparent.

        HDR is converted to SDR such that its reference white (203 cd/m2, ITU-R BT.2408) becomes white; brighter values
        are clipped.

        Raises:
            MediaError: if FFmpeg cannot convert the colors, or memory runs out.
        """
        try:
            form = "rgba" if _has_alpha(frame) else "rgb24"
            if needs_table(frame.color_trc, frame.color_primaries):
                return _over_white(self._converted(frame, size, form).to_ndarray())
            if size == (frame.width, frame.height):
                return _over_white(frame.to_ndarray(format=form))
            return _over_white(frame.to_ndarray(format=form, width=size[0], height=size[1], interpolation="BICUBIC"))
        except MemoryError as error:
            raise no_memory(self._path) from error
        except (pyav().error.FFmpegError, OSError, ValueError) as error:
            kind = f"matrix {frame.colorspace}, transfer {frame.color_trc}, primaries {frame.color_primaries} of H.273"
            raise MediaError(
                MediaFault.UNSUPPORTED,
                f"{self._path} declares colors that cannot be converted ({kind}): save it again in BT.709",
            ) from error

    def _converted(self, frame: Any, size: tuple[int, int], form: str) -> Any:
        described = (frame.width, frame.height, frame.format.name, size, form)
        colors = (frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range)
        if self._known != (described, colors):
            self._graph, self._known = self._table_graph(frame, size, form), (described, colors)
        self._graph.push(frame)
        return self._graph.pull()

    def _table_graph(self, frame: Any, size: tuple[int, int], form: str) -> FilterGraph:
        table = pyav().VideoFrame.from_ndarray(hald_table(frame.color_trc, frame.color_primaries), format="rgb48le")
        deep = "rgba64le" if form == "rgba" else "rgb48le"
        scale = {"w": size[0], "h": size[1], "flags": "bicubic", "out_range": "pc"}
        filters: list[tuple[str, dict[str, Any]]] = [
            *(("scale", scale), ("format", {"pix_fmts": deep})),
            *(("haldclut", {"clut": "first"}), ("format", {"pix_fmts": form})),
        ]
        return FilterGraph(frame, filters, threads=self._threads, beside=table)


def _has_alpha(frame: Any) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def _over_white(frame: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W 3"]:
    if frame.shape[-1] == 3:
        return frame
    colors, alpha = frame[..., :3], frame[..., 3:]
    if alpha.min() == 255:
        return colors.copy()
    return (255 - ((255 - colors).astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
