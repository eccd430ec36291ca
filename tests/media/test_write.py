"""Written media can be read back with their provenance, and errors leave no files behind."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from th_jax.media import MediaError, open_video, read_image
from th_jax.provenance import (
    Kind,
    Provenance,
    read_sidecar,
    sidecar_path,
    write_gif,
    write_image,
    write_page,
    write_video,
)
from th_jax.provenance.record import open_sidecar

RECORD = Provenance(kind=Kind.GENERATED)


def frames(count: int, *, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """A color ramp under a moving square."""
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([3 * x, 4 * y, 200 - x - y], -1).astype(np.uint8)
    for index in range(count):
        frame = ramp.copy()
        frame[8:20, 2 * index : 2 * index + 12] = (250, 20, 20)
        yield frame


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def test_png_is_lossless(tmp_path: Path) -> None:
    (frame,) = frames(1)
    path = write_image(str(tmp_path / "a.png"), frame, provenance=RECORD)
    np.testing.assert_array_equal(read_image(path), frame)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.png.provenance.json"]
    assert read_sidecar(path) == (RECORD, True)
    assert json.loads(sidecar_path(path).read_text())["file"] == "a.png"


def test_jpeg_is_close(tmp_path: Path) -> None:
    (frame,) = frames(1)
    path = write_image(tmp_path / "a.jpg", frame, provenance=RECORD, quality=95)
    assert np.abs(read_image(path).astype(int) - frame).mean() < 2
    smaller = write_image(tmp_path / "b.jpeg", frame, provenance=RECORD, quality=20)
    assert smaller.stat().st_size < path.stat().st_size


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001), 12.5])
def test_video(tmp_path: Path, height: int, width: int, fps: float | Fraction) -> None:
    written = list(frames(20, height=height, width=width))
    path = write_video(tmp_path / "a.mp4", iter(written), fps=fps, provenance=RECORD, crf=8)
    with open_video(path) as video:
        assert video.size == (width + width % 2, height + height % 2)
        assert float(video.fps) == pytest.approx(float(fps), rel=1e-4)
        times, read = zip(*video.frames(), strict=True)
    np.testing.assert_allclose(times, np.arange(20) / float(fps), atol=1e-4)
    read = np.stack(read).astype(int)
    assert np.abs(read[:, :height, :width] - np.stack(written)).mean() < 4
    if width % 2:  # the repeated column
        assert np.abs(read[:, :, -1] - read[:, :, -2]).mean() < 4
    assert read_sidecar(path) == (RECORD, True)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_arrays_of_the_device_are_written(tmp_path: Path) -> None:
    images = jnp.asarray(np.stack(list(frames(3))))
    path = write_image(tmp_path / "a.png", images[0], provenance=RECORD)
    np.testing.assert_array_equal(read_image(path), images[0])
    with open_video(write_video(tmp_path / "a.mp4", images, fps=25, provenance=RECORD)) as video:
        assert len(list(video.frames())) == 3


def test_video_is_a_stream(tmp_path: Path) -> None:
    alive = 0
    most = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def source() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for frame in frames(20):
            alive += 1
            most = max(most, alive)
            yield frame.view(Counted)

    write_video(tmp_path / "a.mp4", source(), fps=25, provenance=RECORD)
    assert most <= 4


@pytest.mark.parametrize("sound", ["aac", "pcm_s16le"])
def test_sound_is_kept_and_cut_to_the_images(tmp_path: Path, make_video, sound: str) -> None:
    driver = make_video("driver.mp4" if sound == "aac" else "driver.mkv", frames=50, sound=sound)
    path = write_video(tmp_path / "out.mp4", frames(30), fps=25, provenance=RECORD, audio_from=driver)
    with av.open(str(path)) as container, av.open(str(driver)) as original:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac"
        tone = np.concatenate([f.to_ndarray().mean(0) for f in container.decode(stream)])
        source = np.concatenate([f.to_ndarray().astype(np.float32).mean(0) for f in original.decode(audio=0)])
    assert 1.1 < len(tone) / 16000 < 1.35
    # The same tone: one strong frequency, and the same one.
    peaks = [np.abs(np.fft.rfft(wave[4000:12000])).argmax() for wave in (tone, source)]
    assert peaks[0] == peaks[1] > 0


def test_sound_from_a_silent_file(tmp_path: Path, make_video) -> None:
    driver = make_video("driver.mp4", frames=5)
    (folder := tmp_path / "out").mkdir()
    with pytest.raises(MediaError, match="no audio track"):
        write_video(folder / "a.mp4", frames(3), fps=25, provenance=RECORD, audio_from=driver)
    assert is_empty(folder)


def test_gif(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "a.gif", frames(12), fps=30, provenance=RECORD)
    with Image.open(path) as image:
        assert image.n_frames == 12
        assert image.info["loop"] == 0
        durations = []
        for index in range(12):
            image.seek(index)
            durations.append(image.info["duration"])
    assert sum(durations) == 400
    with open_video(path) as video:
        assert np.abs(next(video.frames())[1].astype(int) - next(frames(1))).mean() < 12
    assert read_sidecar(path) == (RECORD, True)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "must be uint8 in 0..255, got float32"),
        (np.zeros((8, 8), np.uint8), r"shape \[H, W, 3\], got \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"got \[8, 8, 4\]"),
        (np.zeros((0, 8, 3), np.uint8), r"got \[0, 8, 3\]"),
    ],
)
def test_wrong_frames(tmp_path: Path, frame: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / "a.png", frame, provenance=RECORD)
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", [frame], fps=25, provenance=RECORD)
    with pytest.raises(ValueError, match=message):
        write_gif(tmp_path / "a.gif", [frame], fps=25, provenance=RECORD)
    assert is_empty(tmp_path)


def test_frames_of_two_sizes(tmp_path: Path) -> None:
    mixed = [*frames(3), *frames(1, width=80)]
    with pytest.raises(ValueError, match=r"frame 3 is \[48, 80, 3\] .* \[48, 64, 3\]"):
        write_video(tmp_path / "a.mp4", mixed, fps=25, provenance=RECORD)
    assert is_empty(tmp_path)


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no frames to write"):
        write_video(tmp_path / "a.mp4", [], fps=25, provenance=RECORD)
    with pytest.raises(ValueError, match="there are no frames to write"):
        write_gif(tmp_path / "a.gif", [], fps=25, provenance=RECORD)
    assert is_empty(tmp_path)


def test_wrong_targets_and_settings(tmp_path: Path) -> None:
    (frame,) = frames(1)
    with pytest.raises(ValueError, match=r"must end in \.png, \.jpg, \.jpeg"):
        write_image(tmp_path / "a.webp", frame, provenance=RECORD)
    with pytest.raises(ValueError, match=r"must end in \.mp4"):
        write_video(tmp_path / "a.avi", [frame], fps=25, provenance=RECORD)
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        write_image(tmp_path / "nowhere" / "a.png", frame, provenance=RECORD)
    with pytest.raises(ValueError, match=r"JPEG quality .* got 0"):
        write_image(tmp_path / "a.jpg", frame, provenance=RECORD, quality=0)
    with pytest.raises(ValueError, match=r"crf .* got 60"):
        write_video(tmp_path / "a.mp4", [frame], fps=25, provenance=RECORD, crf=60)
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "a.mp4", [frame], fps=0, provenance=RECORD)
    with pytest.raises(ValueError, match="50 frames/s, got 60"):
        write_gif(tmp_path / "a.gif", [frame], fps=60, provenance=RECORD)
    assert is_empty(tmp_path)


@pytest.mark.parametrize("name", ["Jos\udce9.png", "Jos\udce9.mp4", "Jos\udce9.gif", "Jos\udce9.html"])
def test_a_name_that_is_not_utf8_is_rejected_before_any_work(tmp_path: Path, name: str) -> None:
    def asked() -> Iterator[np.ndarray]:
        raise AssertionError("a frame was asked for")
        yield

    write: Any = {
        ".png": lambda path: write_image(path, next(frames(1)), provenance=RECORD),
        ".mp4": lambda path: write_video(path, asked(), fps=25, provenance=RECORD),
        ".gif": lambda path: write_gif(path, asked(), fps=25, provenance=RECORD),
        ".html": lambda path: write_page(path, "", provenance=RECORD),
    }[Path(name).suffix]
    with pytest.raises(ValueError, match=r"'Jos\\udce9\.\w+' is not valid UTF-8"):
        write(tmp_path / name)
    assert is_empty(tmp_path)


def test_provenance_has_no_default(tmp_path: Path) -> None:
    (frame,) = frames(1)
    with pytest.raises(TypeError, match="provenance"):
        write_image(tmp_path / "a.png", frame)
    assert is_empty(tmp_path)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_an_error_in_the_frames_leaves_the_old_file_alone(tmp_path: Path, name: str) -> None:
    write = write_video if name.endswith("mp4") else write_gif
    path = write(tmp_path / name, frames(3), fps=25, provenance=RECORD)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken() -> Iterator[np.ndarray]:
        yield from frames(10)
        raise RuntimeError("the driver ends here")

    with pytest.raises(RuntimeError, match="the driver ends here"):
        write(path, broken(), fps=25, provenance=Provenance(kind=Kind.FIGURE))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_page_has_its_provenance(tmp_path: Path) -> None:
    path = write_page(tmp_path / "a.html", "<p>ünï</p>", provenance=RECORD)
    assert path.read_text(encoding="utf-8") == "<p>ünï</p>"
    assert read_sidecar(path) == (RECORD, True)
    assert open_sidecar(path).marks == (), "a page carries neither manifest nor watermark"
    with pytest.raises(ValueError, match=r"must end in \.html"):
        write_page(tmp_path / "a.png", "", provenance=RECORD)
