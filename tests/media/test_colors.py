"""Declared video colors are converted to sRGB: matrix, range, transfer, primaries, transparency."""

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from base_clip import base_images, write_test_video
from PIL import Image

from th_jax.media import MediaError, open_video
from th_jax.media.color import Turn

SIZE = (160, 120)

GOLDEN = Path(__file__).parents[1] / "golden" / "hdr.npz"
"""Made by make_hdr.py beside it."""

LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma by ITU-T H.273's number of the matrix: BT.709, FCC, BT.601, SMPTE 240M, BT.2020."""

TO_XYZ = {
    "BT.709": [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]],
    "BT.2020": [[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0.0, 0.0280727, 1.0609851]],
    "P3": [[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0, 0.0451134, 1.0439444]],
}
"""From linear RGB to CIE XYZ with the white of D65: ITU-R BT.709, BT.2020, and Display P3, from their published primaries."""


def face() -> np.ndarray:
    """The middle of the base clip, without its saturated color marks."""
    return cv2.resize(base_images()["closed"][60:], SIZE, interpolation=cv2.INTER_AREA)


def in_primaries(linear: np.ndarray, primaries: str) -> np.ndarray:
    """Linear BT.709 of 0..1 in other primaries."""
    return linear @ (np.linalg.inv(TO_XYZ[primaries]) @ np.array(TO_XYZ["BT.709"])).T


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: light in cd/m2 to the signal of 0..1."""
    power = (np.clip(light, 0, None) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(light: np.ndarray) -> np.ndarray:
    """ARIB STD-B67 and ITU-R BT.2100 for a display of 1000 cd/m2: light in cd/m2 to the signal of 0..1."""
    shown = np.clip(light, 0, None) / 1000
    luminance = np.maximum(shown @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = 12 * shown * luminance ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1, np.sqrt(scene) / 2, 0.17883277 * np.log(np.maximum(scene - 0.28466892, 1e-9)) + 0.55991073
    )


def yuv(signal: np.ndarray, *, matrix: int, bits: int, full: bool = False) -> av.VideoFrame:
    """A PyAV frame of signals of RGB `[H, W, 3]` in 0..1, in 4:4:4."""
    red, blue = LUMA[matrix]
    luma = signal @ [red, 1 - red - blue, blue]
    planes = [luma, (signal[..., 2] - luma) / (2 - 2 * blue), (signal[..., 0] - luma) / (2 - 2 * red)]
    scale = (1 << bits) - 1 if full else 219 << (bits - 8)
    chroma = scale if full else 224 << (bits - 8)
    coded = [plane * (chroma if number else scale) for number, plane in enumerate(planes)]
    zeros = (0 if full else 16 << (bits - 8), 1 << (bits - 1), 1 << (bits - 1))
    whole = np.stack([np.round(plane + zero) for plane, zero in zip(coded, zeros, strict=True)])
    whole = np.clip(whole, 0, (1 << bits) - 1).astype(np.uint8 if bits == 8 else np.uint16)
    frame = av.VideoFrame(signal.shape[1], signal.shape[0], "yuv444p" if bits == 8 else "yuv444p10le")
    for plane, values in zip(frame.planes, whole, strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : plane.width] = values
        plane.update(rows)
    return frame


def write(path: Path, frame: av.VideoFrame, *, matrix: int, trc: int, primaries: int, full: bool = False) -> Path:
    """A lossless video that declares its colors by H.273 numbers."""
    frame.colorspace, frame.color_trc, frame.color_primaries = matrix, trc, primaries
    frame.color_range = 2 if full else 1
    declared = {"colorspace": matrix, "color_trc": trc, "color_primaries": primaries, "color_range": 2 if full else 1}
    return write_test_video(
        *(path, [frame] * 2), codec="ffv1", pix_fmt=frame.format.name, options={"coder": "1"}, declared=declared
    )


def decoded(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return next(video.frames())[1].astype(int)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", LUMA)
def test_matrix_and_range(tmp_path: Path, matrix: int, full: bool) -> None:
    frame = yuv(face() / 255, matrix=matrix, bits=8, full=full)
    path = write(tmp_path / "a.mkv", frame, matrix=matrix, trc=1, primaries=1, full=full)
    assert np.abs(decoded(path) - face()).max() <= 2


@pytest.mark.parametrize(("curve", "trc"), [(pq, 16), (hlg, 18)], ids=["PQ", "HLG"])
def test_hdr(tmp_path: Path, curve: Callable[[np.ndarray], np.ndarray], trc: int) -> None:
    sdr = face()
    light = 203 * in_primaries((sdr / 255) ** 2.4, "BT.2020")  # BT.1886, and BT.2408's reference white
    light[:8, :8] = 600  # a lamp
    path = write(tmp_path / "a.mkv", yuv(curve(light), matrix=9, bits=10), matrix=9, trc=trc, primaries=9)
    found = decoded(path)
    assert (found[:8, :8] == 255).all()
    difference = np.abs(found - sdr)
    difference[:8, :8] = 0
    assert difference.mean() < 1
    assert difference.max() <= 4


def test_hdr_frames_in_any_order(tmp_path: Path) -> None:
    frames = [yuv(np.full((64, 96, 3), 0.2 + 0.04 * number), matrix=9, bits=10) for number in range(6)]
    declared = {"colorspace": 9, "color_trc": 18, "color_primaries": 9, "color_range": 1}
    path = write_test_video(
        *(tmp_path / "a.mkv", frames), codec="ffv1", pix_fmt="yuv444p10le", options={"coder": "1"}, declared=declared
    )
    with open_video(path) as video:
        times, grays = zip(*((time, int(frame[9, 9, 1])) for time, frame in video.frames()), strict=True)
        again = [int(frame[9, 9, 1]) for _, frame in video.frames_at([times[1], times[1], times[4]])]
        once_more = [int(frame[9, 9, 1]) for _, frame in video.frames()]
    assert list(grays) == sorted(set(grays)) == once_more
    assert again == [grays[1], grays[1], grays[4]]


def test_wide_primaries(tmp_path: Path) -> None:
    gray = face().mean(-1, keepdims=True)
    sdr = np.clip(np.round(gray + 1.8 * (face() - gray)), 0, 255)
    signal = in_primaries((sdr / 255) ** 2.4, "P3") ** (1 / 2.4)
    assert np.abs(255 * signal - sdr).mean() > 4  # what is seen if the primaries are not looked at
    path = write(tmp_path / "a.mkv", yuv(signal, matrix=1, bits=10), matrix=1, trc=1, primaries=12)
    found = decoded(path)
    assert np.abs(found - sdr).mean() < 0.5
    assert np.abs(found - sdr).max() < 8  # where a channel nears zero


def test_colors_that_cannot_be_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", yuv(face() / 255, matrix=9, bits=10), matrix=10, trc=1, primaries=1)
    with (
        open_video(path) as video,
        pytest.raises(MediaError, match=r"cannot be converted \(matrix 10, transfer 1, primaries 1 of"),
    ):
        next(video.frames())


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mov", "prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "16"}),
        ("a.mov", "png", "rgba", {}),
        ("a.webm", "libvpx-vp9", "yuva420p", {"deadline": "realtime", "cpu-used": "8", "crf": "10", "g": "3"}),
        ("a.webm", "libvpx", "yuva420p", {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0", "g": "3"}),
    ],
)
def test_transparency_is_composited_over_white(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    frames = []
    for number in range(6):
        image = np.dstack([face(), np.full(SIZE[::-1], 255, np.uint8)])
        image[60:90, :, 3], image[90:, :, 3] = 128, 0
        image[: 8 * number + 8, :8, :3] = 0  # tells which frame it is
        frame = av.VideoFrame.from_ndarray(image, format="rgba")
        frames.append(frame.reformat(format=pix_fmt, dst_colorspace="ITU709") if pix_fmt != "rgba" else frame)
    # An RGB video has no matrix to declare.
    path = write_test_video(
        tmp_path / name,
        frames,
        codec=codec,
        pix_fmt=pix_fmt,
        options=options,
        declared={"bit_rate": 4_000_000} | ({} if pix_fmt == "rgba" else {"colorspace": 1, "color_range": 1}),
    )
    with open_video(path) as video:
        times, found = zip(*video.frames(), strict=True)
        for (time, frame), number in zip(video.frames_at([times[0], times[4]]), (0, 4), strict=True):
            assert time == times[number]
            np.testing.assert_array_equal(frame, found[number])
    assert len(found) == 6
    for number, frame in enumerate(found):
        wanted = face().astype(int)
        wanted[: 8 * number + 8, :8] = 0
        wanted[60:90] = (wanted[60:90] * 128 + 255 * 127) // 255
        wanted[90:] = 255
        assert np.abs(frame - wanted).mean() < 4, number
        assert frame[94:].min() > 245


def test_transparency_of_a_gif(tmp_path: Path) -> None:
    images = []
    for number in range(3):
        image = np.zeros((64, 96, 4), np.uint8)
        image[8:40, 8 + number : 40 + number] = (200, 100, 50, 255)
        images.append(Image.fromarray(image))
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=40, disposal=2)
    frame = decoded(tmp_path / "a.gif")
    assert tuple(frame[50, 50]) == (255, 255, 255)
    assert tuple(frame[20, 20]) == (200, 100, 50)


@pytest.mark.parametrize("name", ["hlg", "pq"])
def test_hdr_as_zscale_converts_it(tmp_path: Path, name: str) -> None:
    with np.load(GOLDEN) as golden:
        (tmp_path / "a.mov").write_bytes(golden[f"{name}_film"].tobytes())
        expected = golden[f"{name}_sdr"]
    found = decoded(tmp_path / "a.mov")
    sdr = cv2.resize(base_images()["closed"], SIZE, interpolation=cv2.INTER_AREA)
    assert np.abs(found - expected).mean() < 1
    assert np.abs(found - sdr).mean() < 3


def test_frames_of_one_pixel_have_the_usual_memory_layout(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 100, 50)).save(tmp_path / "a.gif")
    with open_video(tmp_path / "a.gif") as video:
        assert next(video.frames())[1].strides == (3, 3, 1)
    frame = np.zeros((4, 1, 3), np.uint8)
    for quarters in range(4):
        for mirrored in (False, True):
            turned = Turn(quarters, mirrored=mirrored).of(frame)
            assert turned.strides == (3 * turned.shape[1], 3, 1)
