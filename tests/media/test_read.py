"""Images of all supported kinds are read as upright RGB, or rejected with one sentence."""

import re
import struct
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from base_clip import base_images
from PIL import Image

from th_jax.media import Limits, MediaError, MediaFault, read_image
from th_jax.optional import install_command


def image() -> np.ndarray:
    """A smooth image with four different corners: it survives JPEG and reveals any rotation."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], -1).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size but has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.avif"])
def test_formats(tmp_path: Path, name: str) -> None:
    Image.fromarray(image()).save(tmp_path / name, quality=95)
    frame = read_image(tmp_path / name)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert np.abs(frame.astype(int) - image()).mean() < (3 if name.endswith(("jpg", "webp", "avif")) else 1e-9)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize("name", ["phone.jpg", "phone.png", "phone.webp", "phone.tiff", "phone.avif"])
def test_exif_orientation(tmp_path: Path, name: str, orientation: int, turn) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "phone.jpg": {"subsampling": 0, "quality": 98},
        "phone.webp": {"lossless": True},
        "phone.avif": {"quality": 100, "subsampling": "4:4:4"},
    }
    Image.fromarray(image()).save(tmp_path / name, exif=exif, **options.get(name, {}))
    np.testing.assert_allclose(read_image(tmp_path / name).astype(int), turn(image()), atol=6)


def test_an_invalid_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(image()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image())


def exif_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def png_chunk(kind: bytes, content: bytes, *, checksum: int = 0) -> bytes:
    """A PNG chunk; `checksum` is added to its correct checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ checksum)


@pytest.mark.parametrize("place", ["before the pixels", "after them"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", b"garbage"),
        png_chunk(b"eXIf", b""),
        png_chunk(b"eXIf", exif_block(1)[:12]),
        png_chunk(b"eXIf", exif_block(1)[:4] + b"\xff" * 8),
        png_chunk(b"eXIf", exif_block(1), checksum=1),
        png_chunk(b"tEXt", b"Title\0x", checksum=1),
        png_chunk(b"iCCP", b"x\0\0garbage"),
    ],
    ids=["nonsense", "empty", "cut off", "bad offset", "bad checksum", "text with a bad checksum", "bad profile"],
)
def test_broken_optional_png_chunks_are_ignored(tmp_path: Path, chunk: bytes, place: str) -> None:
    Image.fromarray(image()).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    start = 33 if place == "before the pixels" else len(whole) - 12
    (tmp_path / "a.png").write_bytes(whole[:start] + chunk + whole[start:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image())


def test_a_broken_png_header_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(image()).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[29] ^= 1  # its checksum
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(MediaError, match="not a readable image"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_with_a_broken_exif_block(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image()).save(tmp_path / "a.jpg", exif=exif, quality=98, subsampling=0)
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    for broken in (b"XXXX", b"MM\0*\xff\xff\xff\xff"):
        (tmp_path / "a.jpg").write_bytes(whole[:start] + broken + whole[start + len(broken) :])
        np.testing.assert_allclose(read_image(tmp_path / "a.jpg").astype(int), image(), atol=6)


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    rgba = np.dstack([image(), np.zeros((48, 64), np.uint8)])
    rgba[:24, :, 3] = 255
    rgba[24:36, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    frame = read_image(tmp_path / "a.png").astype(int)
    np.testing.assert_array_equal(frame[:24], image()[:24])
    np.testing.assert_allclose(frame[24:36], (image()[24:36].astype(int) + 255) / 2, atol=2)
    assert (frame[36:] == 255).all()


def test_palette_with_a_transparent_color(tmp_path: Path) -> None:
    indexed = Image.new("P", (8, 8), 0)
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    indexed.putpixel((3, 3), 1)
    indexed.save(tmp_path / "p.png", transparency=0)
    frame = read_image(tmp_path / "p.png")
    assert tuple(frame[0, 0]) == (255, 255, 255)
    assert tuple(frame[3, 3]) == (200, 100, 50)


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(image()[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(image()[..., :1], 3, -1))


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=98)
    np.testing.assert_allclose(read_image(tmp_path / "print.jpg")[8, 8].astype(int), (255, 0, 0), atol=4)


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits(tmp_path: Path, name: str, channels: int) -> None:
    deep = image().astype(np.uint16) * 256 + 77
    cv2.imwrite(str(tmp_path / name), deep[..., 0] if channels == 1 else deep[..., ::-1])
    expected = np.repeat(image()[..., :1], 3, -1) if channels == 1 else image()
    np.testing.assert_allclose(read_image(tmp_path / name).astype(int), expected, atol=1)


def test_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Path(__file__).parents[1] / "data" / "portrait.heic"  # made by tests/golden/make_heic.py
    wanted = cv2.resize(base_images()["closed"], (160, 120), interpolation=cv2.INTER_AREA)
    wanted = wanted[::-1, ::-1].swapaxes(0, 1)  # orientation 7
    frame = read_image(photo)
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 4
    with pytest.raises(MediaError, match="120 x 160 pixels, over the limit of 19199"):
        read_image(photo, limits=Limits(pixels=120 * 160 - 1))
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(MediaError, match=re.escape(f"requires the package pi-heif: {install_command('video')}")):
        read_image(photo)


def test_heic_that_is_truncated(tmp_path: Path) -> None:
    whole = (Path(__file__).parents[1] / "data" / "portrait.heic").read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        (tmp_path / "a.heic").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(MediaError, match=r"damaged or truncated|not a readable image"):
            read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.avif"])
def test_truncated_anywhere(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for share in (0.02, 0.3, 0.6, 0.8):
        (tmp_path / name).write_bytes(whole[: max(1, int(len(whole) * share))])
        with pytest.raises(MediaError, match=r"damaged or truncated|not a readable image") as refused:
            read_image(tmp_path / name)
        assert refused.value.fault is MediaFault.UNDECODABLE


def test_decoders_that_are_not_allowed(tmp_path: Path) -> None:
    Image.fromarray(image()).save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / "a.png")
    with pytest.raises(MediaError, match="not a readable image"):
        read_image(tmp_path / "a.png")


def test_declared_size_is_rejected_before_pixels_are_read(tmp_path: Path) -> None:
    # Neither file holds a pixel: had the decoder been asked for them, the error would be another.
    (tmp_path / "large.png").write_bytes(png_header(9_000, 9_000))
    with pytest.raises(MediaError, match="9000 x 9000 pixels, over the limit of 80000000"):
        read_image(tmp_path / "large.png")
    (tmp_path / "lie.png").write_bytes(png_header(100_000, 100_000))
    with pytest.raises(MediaError, match="more pixels than Pillow decodes"):
        read_image(tmp_path / "lie.png")


def test_many_pixels_are_a_matter_of_limits_not_of_warnings(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_header(9_500, 9_500))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with pytest.raises(MediaError, match="9500 x 9500 pixels, over the limit of 80000000"):
            read_image(tmp_path / "large.png")
        with pytest.raises(MediaError, match="damaged or truncated"):
            read_image(tmp_path / "large.png", limits=Limits(pixels=100_000_000))
        assert warned == []
        assert list(warnings.filters) == before
        with pytest.warns(Image.DecompressionBombWarning):
            Image.open(tmp_path / "large.png").close()


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(image()).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'th_jax\[video\]'"):
        read_image(tmp_path / "a.png")
