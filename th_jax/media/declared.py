"""Applies what a film declares of its pictures: display matrix, shape of pixels, colors, transparency.

Frames come out as a player shows them, in sRGB. Ordinary films, which declare none of it, pay nothing: FFmpeg's scaler
knows their matrix and range by itself.
"""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from th_jax.media.backends import load_backend, pyav
from th_jax.media.filters import FilterGraph
from th_jax.media.gamut import hald_table, needs_table
from th_jax.media.limits import Limits, MediaError, MediaFault, check_pixels

_WIDEST_PIXEL = 16
"""No camera and no broadcast has pixels that are more than 4 times as wide as high, or the other way round."""

_STRAIGHT = 0.02
"""Share of a display matrix's largest number that counts as zero: about one degree."""


class Turn(NamedTuple):
    """How stored frames are turned to stand upright: first by quarter turns, then mirrored."""

    quarters: int
    """Counter-clockwise, 0 to 3."""
    mirrored: bool
    """Left to right."""

    def of(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The frame as it is meant to be seen, contiguous."""
        turned = np.rot90(frame, self.quarters)
        turned = turned[:, ::-1] if self.mirrored else turned
        # NumPy calls a view of one column contiguous, whatever its strides; dlib does not.
        return turned if turned.strides == (3 * turned.shape[1], 3, 1) else turned.copy()


def turn_of(path: Path, frame: Any) -> Turn:
    """What the display matrix of PyAV's frame asks for; no turn if it has none, or one of zeros.

    Raises:
        MediaError: if the matrix is none of the eight that keep the frame's edges upright and level.
    """
    side_data = load_backend("av.sidedata.sidedata", "reading videos")
    declared = frame.side_data.get(side_data.Type.DISPLAYMATRIX)
    if declared is None or declared.buffer_size < 36:
        return Turn(0, mirrored=False)
    # FFmpeg's layout: x' = a x + c y, y' = b x + d y, with y downwards.
    a, b, _, c, d = (int(number) for number in np.frombuffer(declared, np.int32)[:5])
    if not any((a, b, c, d)):
        return Turn(0, mirrored=False)
    small = _STRAIGHT * max(abs(a), abs(b), abs(c), abs(d))
    if not (
        (abs(b) <= small and abs(c) <= small < min(abs(a), abs(d)))
        or (abs(a) <= small and abs(d) <= small < min(abs(b), abs(c)))
    ):
        degrees = f"about {math.degrees(math.atan2(b, a)):.0f} degrees" if a * d != b * c else "no picture at all"
        raise MediaError(
            MediaFault.UNSUPPORTED,
            f"{path} declares that its frames are shown turned or sheared ({degrees} clockwise): quarter turns and mirrors "
            f"are possible, so turn it with a video editor, which writes it anew",
        )
    mirrored = a * d - b * c < 0
    if mirrored:
        a = -a
    # Where the frame's x axis points: right, up, left or down.
    return Turn((0 if a > 0 else 2) if abs(a) > small else (3 if b > 0 else 1), mirrored=mirrored)


def square_size(path: Path, size: tuple[int, int], aspect: Fraction | None, limits: Limits) -> tuple[int, int]:
    """Width and height of a stored frame with square pixels: the direction that has too few gets more.

    Args:
        path: for messages.
        size: width and height in stored pixels.
        aspect: width of a pixel over its height; None or nothing positive if it is not declared.
        limits: bounds on the pixels.

    Raises:
        MediaError: if no film can mean such pixels, or the frame becomes too large.
    """
    if aspect is None or aspect <= 0 or aspect == 1:
        return size
    if not Fraction(1, _WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL:
        raise MediaError(
            MediaFault.UNSUPPORTED,
            f"{path} declares pixels {float(aspect):g} times as wide as high, which no film means: write it anew with "
            f"square pixels",
        )
    width, height = size
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    check_pixels(path, *size, limits)
    return size


class Colors:
    """Turns PyAV's frames into RGB by what each declares; what costs time to set up is kept from frame to frame."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """`path` is for messages; `threads` are FFmpeg's, 0 for its own choice."""
        self._path, self._threads = path, threads
        self._known: tuple | None = None
        self._graph: Any = None

    def rgb(self, frame: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
        """The frame at the given width and height, in sRGB of 0..255, over white where it is transparent.

        HDR is brought to SDR so that its reference white (203 cd/m2, ITU-R BT.2408) is white: what is brighter is clipped.

        Raises:
            MediaError: for colors that FFmpeg cannot convert, and for want of memory.
        """
        try:
            form = "rgba" if _has_alpha(frame) else "rgb24"
            if needs_table(frame.color_trc, frame.color_primaries):
                return _over_white(self._converted(frame, size, form).to_ndarray())
            if size == (frame.width, frame.height):
                return _over_white(frame.to_ndarray(format=form))
            return _over_white(frame.to_ndarray(format=form, width=size[0], height=size[1], interpolation="BICUBIC"))
        except MemoryError as error:
            raise MediaError(MediaFault.OVER_LIMITS, f"{self._path} needs more memory than there is") from error
        except (pyav().error.FFmpegError, OSError, ValueError) as error:
            kind = f"matrix {frame.colorspace}, transfer {frame.color_trc}, primaries {frame.color_primaries} of H.273"
            raise MediaError(
                MediaFault.UNSUPPORTED,
                f"{self._path} declares colors that cannot be converted ({kind}): write it anew in BT.709",
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
