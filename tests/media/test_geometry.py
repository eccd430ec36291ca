"""Videos are read as a player shows them: rotation, mirroring, square pixels, deinterlacing."""

import io
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from base_clip import base_images, write_test_video

from th_jax.media import Limits, MediaError, open_video
from th_jax.media.containers import clean_aperture

ONE = 1 << 16


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of the base clip, at a quarter of its size."""
    image = cv2.resize(base_images()["closed"], (160, 120), interpolation=cv2.INTER_AREA)
    return write_test_video(tmp_path_factory.mktemp("still") / "still.mp4", [image] * 2)


@pytest.fixture
def with_matrix(still: Path, tmp_path: Path) -> Callable[..., Path]:
    """The video with its display matrix a, b, c, d overwritten: x' = a x + c y, y' = b x + d y."""

    def write(a: int, b: int, c: int, d: int) -> Path:
        data = bytearray(still.read_bytes())
        start = data.index(b"tkhd") + 44
        assert struct.unpack(">9i", data[start : start + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
        data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        (tmp_path / "turned.mp4").write_bytes(data)
        return tmp_path / "turned.mp4"

    return write


def first_frame(path: Path) -> np.ndarray:
    with open_video(path) as video:
        _, frame = next(video.frames())
        assert video.size == (frame.shape[1], frame.shape[0])
        assert frame.flags.c_contiguous
    return frame


def shown(frame: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The standard's transform (ISO/IEC 14496-12, 6.2.2): pixels move by the matrix, then all to x, y >= 0."""
    y, x = np.indices(frame.shape[:2])
    new_x, new_y = a * x + c * y, b * x + d * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    turned = np.empty((new_y.max() + 1, new_x.max() + 1, 3), np.uint8)
    turned[new_y, new_x] = frame
    return turned


@pytest.mark.parametrize(
    ("matrix", "rotation", "mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, -1, 1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, 1, -1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
        ((0, -1, -1, 0), 90, True),
        ((1, 0, 0, -1), 180, True),
        ((0, 1, 1, 0), 270, True),
    ],
)
def test_all_eight_matrices(
    still: Path, with_matrix: Callable[..., Path], matrix: tuple[int, ...], rotation: int, mirrored: bool
) -> None:
    path = with_matrix(*(ONE * number for number in matrix))
    np.testing.assert_array_equal(first_frame(path), shown(first_frame(still), *matrix))
    with open_video(path) as video:
        assert (video.rotation, video.mirrored) == (rotation, mirrored)


@pytest.mark.parametrize("scale", [2.0, 0.5])
def test_a_matrix_may_enlarge_and_may_be_a_little_off(
    still: Path, with_matrix: Callable[..., Path], scale: float
) -> None:
    path = with_matrix(round(-scale * ONE), 30, -20, round(scale * ONE))
    np.testing.assert_array_equal(first_frame(path), first_frame(still)[:, ::-1])


def test_a_zero_matrix_is_ignored(still: Path, with_matrix: Callable[..., Path]) -> None:
    np.testing.assert_array_equal(first_frame(with_matrix(0, 0, 0, 0)), first_frame(still))


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        ((46341, 46341, -46341, 46341), "about 45 degrees clockwise"),
        ((ONE, 0, ONE, ONE), "about 0 degrees"),
        ((ONE, 0, 0, 0), "a singular matrix"),
        ((2**31 - 1, -(2**31), 1, 1), "about -45 degrees"),
    ],
)
def test_other_matrices_are_rejected(with_matrix: Callable[..., Path], matrix: tuple[int, ...], what: str) -> None:
    with pytest.raises(MediaError, match=rf"rotated or sheared frames \({what}"):
        open_video(with_matrix(*matrix))


@pytest.mark.parametrize(("aspect", "stored"), [("16/9", (360, 480)), ("9/16", (640, 270)), ("1/1", (640, 480))])
def test_pixels_become_square(tmp_path: Path, aspect: str, stored: tuple[int, int]) -> None:
    image = base_images()["closed"]
    squeezed = cv2.resize(image, stored, interpolation=cv2.INTER_AREA)
    path = write_test_video(tmp_path / "a.mp4", [squeezed] * 2, declared={"sample_aspect_ratio": Fraction(aspect)})
    frame = first_frame(path)
    assert frame.shape == image.shape
    assert np.abs(frame.astype(int) - image).mean() < 4


def test_pixels_become_square_before_frames_are_turned(tmp_path: Path, still: Path) -> None:
    image = first_frame(still)
    path = write_test_video(
        tmp_path / "a.mp4",
        [cv2.resize(image, (80, 120), interpolation=cv2.INTER_AREA)] * 2,
        declared={"sample_aspect_ratio": Fraction(2)},
    )
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", 0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert np.abs(first_frame(path).astype(int) - np.rot90(image, -1)).mean() < 5


@pytest.mark.parametrize("aspect", [Fraction(20), Fraction(1, 17)])
def test_implausible_pixel_aspect_ratios(tmp_path: Path, aspect: Fraction) -> None:
    path = write_test_video(
        tmp_path / "a.mp4", [np.zeros((64, 96, 3), np.uint8)], declared={"sample_aspect_ratio": aspect}
    )
    with pytest.raises(MediaError, match=f"aspect ratio of {float(aspect):g}"):
        open_video(path)


def test_limits_hold_for_square_pixels(tmp_path: Path) -> None:
    declared = {"sample_aspect_ratio": Fraction(4)}
    path = write_test_video(tmp_path / "a.mp4", [np.zeros((64, 96, 3), np.uint8)], declared=declared)
    open_video(path, limits=Limits(pixels=384 * 64)).close()
    with pytest.raises(MediaError, match="384 x 64 pixels, over the limit of 24575 pixels"):
        open_video(path, limits=Limits(pixels=384 * 64 - 1))


def moving(moment: int) -> np.ndarray:
    """A gray disc that moves 6 pixels to the right per field, in front of static stripes."""
    image = np.full((96, 160, 3), 60, np.uint8)
    image[:, ::16] = 120
    cv2.circle(image, (30 + 6 * moment, 48), 24, (220, 220, 220), -1, cv2.LINE_AA)
    return image


def test_interlaced_videos_become_whole_frames(tmp_path: Path) -> None:
    frames = []
    for number in range(8):
        woven = moving(2 * number)
        woven[::2] = moving(2 * number + 1)[::2]  # the lower rows come first
        frames.append(woven)
    path = write_test_video(
        *(tmp_path / "a.mpg", frames),
        fps=25,
        codec="mpeg2video",
        options={"flags": "+ildct+ilme", "g": "4"},
        declared={"bit_rate": 20_000_000, "colorspace": 1},
    )
    with open_video(path) as video:
        times, found = zip(*video.frames(), strict=True)
        again = list(video.frames_at(times))
    np.testing.assert_allclose(times, np.arange(8) / 25, atol=1e-6)
    errors = [np.abs(frame.astype(int) - moving(2 * number)).mean() for number, frame in enumerate(found)]
    woven_errors = [np.abs(frame.astype(int) - moving(2 * number)).mean() for number, frame in enumerate(frames)]
    assert max(errors) < 0.6 * min(woven_errors), (errors, woven_errors)
    for time, frame, (shown_time, shown_frame) in zip(times, found, again, strict=True):
        assert time == shown_time
        np.testing.assert_array_equal(frame, shown_frame)


def test_progressive_videos_are_not_filtered(still: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("th_jax.media.color.FilterGraph", None)
    assert math.prod(first_frame(still).shape) == 160 * 120 * 3


def with_aperture(path: Path, *numbers: int) -> Path:
    """Insert a clean aperture into an MP4's sample description."""
    data = path.read_bytes()
    box = struct.pack(">I4s8i", 40, b"clap", *numbers)
    place = data.rindex(b"avc1") - 4
    end = place + struct.unpack(">I", data[place : place + 4])[0]
    data = data[:end] + box + data[end:]
    for kind in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        start = data.rindex(kind) - 4
        length = struct.unpack(">I", data[start : start + 4])[0] + len(box)
        data = data[:start] + struct.pack(">I", length) + data[start + 4 :]
    path.write_bytes(data)
    return path


def test_clean_aperture(still: Path, tmp_path: Path) -> None:
    whole = first_frame(still)
    path = tmp_path / "a.mp4"
    path.write_bytes(still.read_bytes())
    # 120 x 100 pixels, the middle of which lies 10 to the right of the frame's and 4 above it
    np.testing.assert_array_equal(first_frame(with_aperture(path, 120, 1, 200, 2, 10, 1, -4, 1)), whole[6:106, 30:150])


def test_clean_aperture_of_pixels_that_are_not_square(tmp_path: Path) -> None:
    image = base_images()["closed"]
    squeezed = cv2.resize(image, (360, 480), interpolation=cv2.INTER_AREA)
    path = write_test_video(tmp_path / "a.mp4", [squeezed] * 2, declared={"sample_aspect_ratio": Fraction(16, 9)})
    whole = first_frame(path)
    cut = first_frame(with_aperture(path, 342, 1, 480, 1, 0, 1, 0, 1))
    np.testing.assert_array_equal(cut, whole[:, 16:624])


@pytest.mark.parametrize(
    "numbers",
    [
        (120, 0, 100, 1, 0, 1, 0, 1),
        (2**31 - 1, 1, 2**31 - 1, 1, 0, 1, 0, 1),
        (120, 1, 100, 1, 2**31 - 1, 1, -(2**31), 1),
        (0, 1, 0, 1, 0, 1, 0, 1),
        (160, 1, 120, 1, 0, 1, 0, 1),
        (1, 2**31 - 1, 100, 1, 0, -1, 0, 1),
    ],
)
def test_invalid_apertures_are_ignored(still: Path, tmp_path: Path, numbers: tuple[int, ...]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(still.read_bytes())
    np.testing.assert_array_equal(first_frame(with_aperture(path, *numbers)), first_frame(still))


def test_boxes_of_any_length_terminate(still: Path) -> None:
    whole = still.read_bytes()
    generator = np.random.default_rng(0)
    places = [
        whole.rindex(kind) - 4 for kind in (b"moov", b"trak", b"tkhd", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    ]
    for _ in range(200):
        data = bytearray(whole)
        for place in generator.choice(places, 2):
            length = int(generator.choice([0, 1, 7, 8, 9, 2**31, 2**32 - 1, int(generator.integers(0, 2000))]))
            data[place : place + 4] = struct.pack(">I", length)
        assert clean_aperture(io.BytesIO(data), 1, (160, 120)) is None
