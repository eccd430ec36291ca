"""Each error has a fault category for programs and a sentence for people."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from th_jax.media import DEFAULT_LIMITS, MediaError, MediaFault, open_video, read_image


def check(read: Callable, path: Path | str, fault: MediaFault, sentence: str, **limits: float) -> None:
    with pytest.raises(MediaError, match=sentence) as refused:
        read(path, limits=DEFAULT_LIMITS._replace(**limits))
    assert refused.value.fault is fault


@pytest.mark.parametrize("read", [read_image, open_video])
def test_paths_that_are_not_files(tmp_path: Path, read: Callable) -> None:
    (empty := tmp_path / "empty").touch()
    (text := tmp_path / "over the limit.only sound").write_text("a letter\n" * 99)
    (loop := tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe")
    check(read, tmp_path / "missing.png", MediaFault.MISSING, r"missing\.png does not exist")
    check(read, empty, MediaFault.EMPTY, r"is empty \(0 bytes\)")
    check(read, loop, MediaFault.UNREADABLE, "cannot be read")
    check(read, text, MediaFault.UNDECODABLE, r"not a readable (image|video).*\(supported: (PNG, JPEG|MP4)")
    check(read, text, MediaFault.OVER_LIMITS, "bytes, over the limit of 10", file_bytes=10)
    check(read, tmp_path, MediaFault.UNSUPPORTED, "is a folder, not a file")
    check(read, tmp_path / "pipe", MediaFault.UNSUPPORTED, "is a device or pipe")
    for address in (
        "http://a.org/a",
        "rtsp://a.org/live",
        "file:///etc/hosts",
        "rtmp://a.org/a",
        "concat:/a.mp4|b.mp4",
    ):
        check(read, address, MediaFault.UNSUPPORTED, "only local files")


def test_images(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(path := tmp_path / "a.png")
    size = path.stat().st_size
    frame = read_image(path, limits=DEFAULT_LIMITS._replace(file_bytes=size, pixels=64 * 48))
    assert frame.shape == (48, 64, 3), "of just the limits"
    check(read_image, path, MediaFault.OVER_LIMITS, "bytes, over the limit of", file_bytes=size - 1)
    check(read_image, path, MediaFault.OVER_LIMITS, "64 x 48 pixels, over the limit of 3071 pixels", pixels=64 * 48 - 1)
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "floats.tiff")
    check(read_image, tmp_path / "floats.tiff", MediaFault.UNSUPPORTED, "floating-point values")


def test_videos(make_video: Callable[..., Path], make_sound: Callable[[], Path]) -> None:
    path = make_video(frames=30)
    over = MediaFault.OVER_LIMITS
    check(open_video, path, over, "96 x 64 pixels, over the limit of 6143 pixels", pixels=96 * 64 - 1)
    check(open_video, path, over, "declares 30 frames, over the limit of 29", frames=29)
    check(open_video, path, over, "over the limit of 1 s", seconds=1.0)
    check(open_video, make_sound(), MediaFault.UNSUPPORTED, "contains only audio")
    foreign = make_video("foreign.avi", frames=3, codec="huffyuv", pix_fmt="yuv422p", options={})
    check(open_video, foreign, MediaFault.UNSUPPORTED, r"codec huffyuv.* not supported")
    path.write_bytes(path.read_bytes()[:-200])  # the index of an MP4 stands at its end
    check(open_video, path, MediaFault.UNDECODABLE, "not a readable video")


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
