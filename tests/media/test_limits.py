"""Each error has a fault category for programs and a sentence for people."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from th_jax.media import DEFAULT_LIMITS, MediaError, MediaFault, open_video, read_image


def fault(read: Callable, path: Path | str, **limits: float) -> MediaFault:
    with pytest.raises(MediaError) as refused:
        read(path, limits=DEFAULT_LIMITS._replace(**limits))
    return refused.value.fault


@pytest.mark.parametrize("read", [read_image, open_video])
def test_paths_that_are_not_files(tmp_path: Path, read: Callable) -> None:
    (empty := tmp_path / "empty").touch()
    (text := tmp_path / "over the limit.only sound").write_text("a letter\n" * 99)
    (loop := tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert fault(read, tmp_path / "nothing") is MediaFault.MISSING
    assert fault(read, empty) is MediaFault.EMPTY
    assert fault(read, loop) is MediaFault.UNREADABLE
    assert fault(read, text) is MediaFault.UNDECODABLE, "whatever its name says"
    assert fault(read, text, file_bytes=10) is MediaFault.OVER_LIMITS
    assert fault(read, tmp_path) is MediaFault.UNSUPPORTED
    assert fault(read, tmp_path / "pipe") is MediaFault.UNSUPPORTED
    assert fault(read, "http://example.org/a") is MediaFault.UNSUPPORTED


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path := tmp_path / "a.png")
    size = path.stat().st_size
    read_image(path, limits=DEFAULT_LIMITS._replace(file_bytes=size, pixels=64))
    assert fault(read_image, path, file_bytes=size - 1) is MediaFault.OVER_LIMITS
    assert fault(read_image, path, pixels=63) is MediaFault.OVER_LIMITS


def test_images(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "floats.tiff")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    assert fault(read_image, tmp_path / "a.png", pixels=100) is MediaFault.OVER_LIMITS
    assert fault(read_image, tmp_path / "floats.tiff") is MediaFault.UNSUPPORTED
    assert fault(read_image, tmp_path / "cut.png") is MediaFault.UNDECODABLE


def test_videos(make_video: Callable[..., Path], make_sound: Callable[[], Path]) -> None:
    video = make_video(frames=30)
    foreign = make_video("foreign.avi", frames=3, codec="huffyuv", pix_fmt="yuv422p", options={})
    for limits in ({"pixels": 100}, {"frames": 29}, {"seconds": 1.0}):
        assert fault(open_video, video, **limits) is MediaFault.OVER_LIMITS
    assert fault(open_video, make_sound()) is MediaFault.UNSUPPORTED
    assert fault(open_video, foreign) is MediaFault.UNSUPPORTED
    video.write_bytes(video.read_bytes()[:-200])
    assert fault(open_video, video) is MediaFault.UNDECODABLE


def test_the_error_prints_its_message_and_survives_a_pipe() -> None:
    error = pickle.loads(pickle.dumps(MediaError(MediaFault.EMPTY, "a.mp4 is empty (0 bytes)")))
    assert (str(error), error.fault) == ("a.mp4 is empty (0 bytes)", MediaFault.EMPTY)
    assert isinstance(error, ValueError)


def test_file_names_are_escaped_for_terminals(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b]0;owned\x07\n.png"
    path.write_bytes(b"no image")
    with pytest.raises(MediaError) as refusal:
        read_image(path)
    assert str(refusal.value).isprintable()
    assert r"a\x1b]0;owned\x07\n.png" in str(refusal.value)
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)
