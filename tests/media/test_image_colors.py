"""Images with an ICC profile are converted to sRGB; broken or mismatched profiles are ignored."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from base_clip import base_images
from PIL import Image, ImageCms

from th_jax.media import read_image

# Colorants of the profiles, adapted to the white of D50, as they stand in the publishers' own files.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
D50 = (0.96420, 1.0, 0.82491)


def fixed(*numbers: float) -> bytes:
    """ICC's s15Fixed16 numbers."""
    return b"".join(struct.pack(">i", round(65536 * number)) for number in numbers)


def icc_profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of version 2 with these tags (ICC.1:2001-04)."""
    tags = {
        b"desc": b"desc\0\0\0\0\0\0\0\2x\0" + bytes(79),
        b"cprt": b"text\0\0\0\0x\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50),
    } | tags
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", 132 + 12 * len(tags) + len(data), b"", 0x02100000, kind, space, connection, b"", b"acsp"
    )
    header += bytes(28) + fixed(*D50)
    return header.ljust(128, b"\0") + table + data


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))


def rgb_profile(colorants: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    tags = {b"rgb"[i : i + 1] + b"XYZ": b"XYZ \0\0\0\0" + fixed(*colorants[i]) for i in range(3)}
    tags |= {name: gamma_curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return icc_profile(b"RGB ", b"XYZ ", b"mntr", tags)


def srgb_signal(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_light(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 10.31475, signal / 255 / 12.92, ((signal / 255 + 0.055) / 1.055) ** 2.4)


def colorful() -> np.ndarray:
    face = cv2.resize(base_images()["closed"], (64, 48), interpolation=cv2.INTER_AREA).astype(float)
    gray = face.mean(-1, keepdims=True)
    return np.clip(np.round(gray + 1.5 * (face - gray)), 0, 255)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.avif"])
@pytest.mark.parametrize(("colorants", "gamma"), [(DISPLAY_P3, 2.4), (ADOBE_RGB, 2.2)], ids=["P3", "AdobeRGB"])
def test_wide_gamuts(tmp_path: Path, name: str, colorants: tuple[tuple[float, ...], ...], gamma: float) -> None:
    wanted = colorful()
    matrix = np.linalg.solve(np.array(colorants).T, np.array(SRGB).T)
    stored = np.round(255 * np.clip(srgb_light(wanted) @ matrix.T, 0, 1) ** (1 / round(256 * gamma) * 256)).astype(
        np.uint8
    )
    options = {
        "a.jpg": {"quality": 98, "subsampling": 0},
        "a.webp": {"lossless": True},
        "a.avif": {"quality": 100, "subsampling": "4:4:4"},
    }
    Image.fromarray(stored).save(tmp_path / name, icc_profile=rgb_profile(colorants, gamma), **options.get(name, {}))
    assert np.abs(stored - wanted).mean() > 3
    assert np.abs(read_image(tmp_path / name) - wanted).mean() < 1.5


def test_transparent_images_with_a_profile(tmp_path: Path) -> None:
    color = np.full((8, 8, 4), (200, 90, 60, 255), np.uint8)
    color[4:, :, 3] = 0
    light = (color[0, 0, :3] / 255) ** (round(256 * 2.2) / 256) @ np.array(ADOBE_RGB)
    wanted = srgb_signal(np.linalg.solve(np.array(SRGB).T, light))
    Image.fromarray(color).save(tmp_path / "a.png", icc_profile=rgb_profile(ADOBE_RGB, 2.2))
    frame = read_image(tmp_path / "a.png").astype(int)
    assert (frame[4:] == 255).all()
    np.testing.assert_allclose(frame[:4], np.broadcast_to(wanted, (4, 8, 3)), atol=1.5)


@pytest.mark.parametrize("deep", [False, True])
def test_gray_with_a_profile(tmp_path: Path, deep: bool) -> None:
    gray = np.arange(0, 256, 4, np.uint8).reshape(8, 8)
    profile = icc_profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": gamma_curve(1.5)})
    image = Image.fromarray(gray.astype(np.uint16) * 257) if deep else Image.fromarray(gray)
    image.save(tmp_path / "a.png", icc_profile=profile)
    wanted = np.repeat(srgb_signal((gray / 255) ** 1.5)[..., None], 3, -1)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), wanted, atol=2)


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    # Inks whose corners are known colors, in CIE Lab: everything between follows by interpolation.
    corners = {
        (0, 0, 0, 0): (100, 0, 0),
        (1, 0, 0, 0): (55, -37, -50),
        (0, 1, 0, 0): (48, 74, -3),
        (0, 1, 1, 0): (47, 68, 48),
    }
    table = b"".join(
        struct.pack(">HHH", round(lab[0] * 652.8), round((lab[1] + 128) * 256), round((lab[2] + 128) * 256))
        for inks in np.ndindex(2, 2, 2, 2)
        for lab in [corners.get(inks, (0, 0, 0))]
    )
    ramp = struct.pack(">HH", 0, 65535)
    lut = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    profile = icc_profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut + 4 * ramp + table + 3 * ramp})
    for inks, lab in corners.items():
        image = Image.new("CMYK", (16, 16), tuple(255 * ink for ink in inks))
        image.save(tmp_path / "a.jpg", icc_profile=profile, quality=100)
        wanted = srgb_signal(np.linalg.solve(np.array(SRGB).T, lab_to_xyz(*lab)))
        np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], wanted, atol=4)


def lab_to_xyz(lightness: float, a: float, b: float) -> np.ndarray:
    y = (lightness + 16) / 116
    cubes = np.array([y + a / 500, y, y - b / 200])
    return np.array(D50) * np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29))


@pytest.mark.parametrize(
    "profile",
    [
        b"nonsense",
        rgb_profile(ADOBE_RGB, 2.2)[:200],
        rgb_profile(ADOBE_RGB, 2.2).replace(b"acsp", b"xxxx"),
        rgb_profile(ADOBE_RGB, 2.2).replace(b"curv", b"\xff\xff\xff\xff"),
        icc_profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": gamma_curve(1.0)}),
        icc_profile(b"CMYK", b"Lab ", b"prtr", {}),
    ],
    ids=["nonsense", "cut off", "no profile", "no curves", "of gray", "of inks"],
)
def test_profiles_that_cannot_be_used(tmp_path: Path, profile: bytes) -> None:
    wanted = colorful().astype(np.uint8)
    Image.fromarray(wanted).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), wanted)


def test_an_srgb_profile_changes_almost_nothing(tmp_path: Path) -> None:
    wanted = colorful().astype(np.uint8)
    buffer = io.BytesIO(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    Image.fromarray(wanted).save(tmp_path / "a.png", icc_profile=buffer.getvalue())
    np.testing.assert_allclose(read_image(tmp_path / "a.png").astype(int), wanted, atol=1)
