"""Files that go wrong, or only look as if they would, made on the spot from a rendered talk; each says what shall come."""

import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from data_prep.build.quality import Reason
from data_prep.heads import draw_identity, head_state, render_head
from tests.data_prep.clips_of_people import FPS, SIZE, talk
from th_jax.media import DEFAULT_LIMITS, Limits, MediaFault

USED = "used"
NO_FACE = "no face"


class BadFile(NamedTuple):
    """How a file is made, and what becomes of it."""

    name: str
    make: Callable[[Path], object]
    shots: MediaFault | str
    """The fault when shots are loaded from it, USED, or the sentence of a ValueError."""
    reason: Reason | None
    """Why preparation leaves it out; None if it makes a record."""
    also: Reason | None = None
    """A reason that is noted beside it."""
    limits: Limits = DEFAULT_LIMITS


def make_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    ticks: list[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> None:
    """Frames of `FPS`; `ticks` are their times in hundredths of a second."""
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=int(FPS))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.options = {"crf": "10", "g": "4"} if options is None else options
        if rotation:
            stream.set_display_rotation(rotation)
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, int(FPS))
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def heads() -> np.ndarray:
    return talk(3).frames


def head() -> np.ndarray:
    return talk(3).frames[4]


@cache
def profiles() -> np.ndarray:
    states = [head_state(yaw=np.radians(70 + n), expression={"jawOpen": 0.05 * n}) for n in range(8)]
    return np.stack([render_head(draw_identity(3), state, size=SIZE).frame for state in states])


def on_gray(frames: np.ndarray, side: int, *, height: int = 240, width: int = 320) -> np.ndarray:
    """The frames, resized, in the middle of larger ones."""
    wide = np.full((len(frames), height, width, 3), 128, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    for frame, small in zip(wide, frames, strict=True):
        frame[top : top + side, left : left + side] = cv2.resize(small, (side, side), interpolation=cv2.INTER_AREA)
    return wide


def blurred(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 3.0) for frame in frames])


def cut(share: float, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def made(path: Path) -> None:
        make(path)
        os.truncate(path, int(path.stat().st_size * share))

    return made


def damaged(path: Path) -> None:
    """Zeros in the middle of the video."""
    make_video(path, heads())
    with av.open(str(path)) as container:
        start, size = [(packet.pos, packet.size) for packet in container.demux(video=0)][5]
    content = bytearray(path.read_bytes())
    content[start + size // 3 : start + size] = bytes(size - size // 3)
    path.write_bytes(content)


def sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.rate = 16000
        container.mux([*stream.encode(silence), *stream.encode(None)])


def lying_avi(path: Path) -> None:
    """A codec that takes its size from the file's header, and a header that declares 100,000 x 100,000 pixels."""
    make_video(path, heads()[:4], codec="ffv1", options={}, container_format="avi")
    content = path.read_bytes()
    sizes = struct.pack("<II", SIZE, SIZE)
    assert sizes in content
    path.write_bytes(content.replace(sizes, struct.pack("<II", 100_000, 100_000)))


def two_sizes(path: Path) -> None:
    """A broadcast whose image becomes smaller in the middle, and whose clock starts again."""
    content = b""
    for side in (SIZE, 96):
        make_video(path, on_gray(heads(), side, height=side, width=side), container_format="mpegts")
        content += path.read_bytes()
    path.write_bytes(content)


def sparse(path: Path) -> None:
    """A video with nine gigabytes of nothing behind it, which take no place on the disk."""
    make_video(path, heads())
    os.truncate(path, 9 * 2**30)


def moving_gif(path: Path) -> None:
    images = [Image.fromarray(frame) for frame in heads()]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=100)


def gif_header(path: Path) -> None:
    path.write_bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x00\x00\x00" + b";" * 4000)


def png(path: Path, width: int, height: int, *, pixels: bytes = b"") -> None:
    """A PNG that declares a size, whatever it holds."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + pixels, b"IEND"
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def bmp_header(path: Path) -> None:
    info = struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info)


def text_bomb(path: Path) -> None:
    """An image with 200 MB of compressed text in it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "0" * 2 * 10**8, zip=True)
    Image.fromarray(head()).save(path, "PNG", pnginfo=info)


def make_image(**options: object) -> Callable[[Path], object]:
    def made(path: Path) -> None:
        image = Image.fromarray(head())
        if "mode" in options:
            image = image.convert(str(options["mode"]))
        image.save(path, quality=95)

    return made


def alpha(path: Path) -> None:
    Image.fromarray(np.dstack([head(), np.full((SIZE, SIZE), 200, np.uint8)])).save(path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(head())).save(path, exif=exif, quality=95)


def pages(path: Path) -> None:
    Image.fromarray(head()).save(path, save_all=True, append_images=[Image.new("RGB", (9, 9))])


def with_a_tail(path: Path) -> None:
    make_image()(path)
    path.write_bytes(path.read_bytes() + b"PK\x03\x04" + bytes(5000))


def sixteen_bits(path: Path) -> None:
    cv2.imwrite(str(path), head()[..., ::-1].astype(np.uint16) * 257)


def loop(path: Path) -> None:
    path.symlink_to(path)


def text(path: Path) -> None:
    path.write_text("no video at all\n" * 200)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
