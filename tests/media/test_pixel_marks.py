"""The default watermark: embedded in every unmarked generated image, in no other, and read by the verifier."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.media import open_video, read_image
from th_jax.provenance import Kind, Provenance, read_sidecar, unmarked_path, write_gif, write_image, write_video
from th_jax.provenance.record import open_sidecar
from th_jax.provenance.verify import Verdict, verify_file
from th_jax.provenance.watermark.detect import detect

AVATAR = "c0ffee" + 58 * "1"
RECORD = Provenance(kind=Kind.GENERATED, avatar=AVATAR)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """A rendered head of 64 px, 26 frames."""
    record = VideoRecords(bundled_heads(), "heldout").read(3)
    frames = [decode_frame(jpeg, size=FRAME_SIZE) for jpeg in record.frames[:26]]
    return np.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames])


def test_a_still_carries_the_avatars_first_bits(tmp_path: Path, head: np.ndarray) -> None:
    large = cv2.resize(head[0], (256, 256), interpolation=cv2.INTER_CUBIC)
    path = write_image(tmp_path / "ada.png", large, provenance=RECORD)
    written = read_image(path)
    (mark,) = detect(written).marks
    assert (mark.bits, mark.message) == (32, int(AVATAR[:8], 16))
    assert np.abs(written.astype(int) - large).max() > 0
    assert read_sidecar(path)[0].watermark == AVATAR[:8]
    assert open_sidecar(path).marks == ("c2pa", "watermark")


def test_a_video_stays_marked_without_its_manifest(tmp_path: Path, head: np.ndarray) -> None:
    path = write_video(tmp_path / "ada.mp4", head, fps=25, provenance=RECORD)
    report = verify_file(path)
    assert report.verdict is Verdict.MARKED
    assert AVATAR[:4] in "\n".join(report.lines)
    with open_video(path) as video:
        frames = [frame for _, frame in video.frames()]
    again = write_video(tmp_path / "again.mp4", frames, fps=25, provenance=Provenance(kind=Kind.REAL_CROP), crf=23)
    again.with_name("again.mp4.provenance.json").unlink()
    report = verify_file(again)
    assert report.verdict is Verdict.STRIPPED
    assert AVATAR[:4] in "\n".join(report.lines)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.GENERATED])
def test_other_pixels_are_left_as_they_are(tmp_path: Path, head: np.ndarray, kind: Kind) -> None:
    path = write_image(tmp_path / "ada.png", head[0], provenance=Provenance(kind=kind))
    np.testing.assert_array_equal(read_image(path), head[0])
    assert "watermark" not in open_sidecar(path).marks


def test_marked_frames_are_not_marked_again(tmp_path: Path, head: np.ndarray) -> None:
    record = Provenance(kind=Kind.GENERATED, avatar=AVATAR, watermark="beef")
    path = write_image(tmp_path / "ada.png", head[0], provenance=record)
    np.testing.assert_array_equal(read_image(path), head[0])
    assert read_sidecar(path)[0].watermark == "beef"


def test_unmarked_output_needs_an_unmarked_name(tmp_path: Path, head: np.ndarray) -> None:
    path = unmarked_path(tmp_path / "ada.png")
    write_image(path, head[0], provenance=RECORD, unmarked_for_research=True)
    np.testing.assert_array_equal(read_image(path), head[0])
    record = open_sidecar(path)
    assert (record.unmarked_for_research, record.marks, record.provenance.watermark) == (True, (), None)


def test_the_square_in_the_middle_is_marked_and_small_frames_are_not(tmp_path: Path, head: np.ndarray) -> None:
    wide = np.repeat(cv2.resize(head[0], (128, 128), interpolation=cv2.INTER_CUBIC), 2, axis=1)
    path = write_image(tmp_path / "wide.png", wide, provenance=RECORD)
    changed = np.abs(read_image(path).astype(int) - wide).max((0, 2)) > 0
    assert not changed[:64].any()
    assert changed[64:192].all()
    assert not changed[192:].any()
    path = write_image(tmp_path / "small.png", head[0, :32, :32], provenance=RECORD)
    np.testing.assert_array_equal(read_image(path), head[0, :32, :32])
    assert open_sidecar(path).marks == ("c2pa",)


def test_a_gif_is_marked_before_its_colors_are_counted(tmp_path: Path, head: np.ndarray) -> None:
    path = write_gif(tmp_path / "ada.gif", head[:3], fps=25, provenance=RECORD)
    assert open_sidecar(path).marks == ("c2pa", "watermark")
    assert read_sidecar(path)[0].watermark == AVATAR[:4]


def test_without_an_avatar_the_weights_are_named(tmp_path: Path, head: np.ndarray) -> None:
    records = [Provenance(kind=Kind.GENERATED, weights={"heads": digit * 64}) for digit in "ab"]
    for number, record in enumerate(records):
        write_image(tmp_path / f"{number}.png", head[0], provenance=record)
    one, other = (read_sidecar(tmp_path / f"{number}.png")[0].watermark for number in range(2))
    assert one != other
    assert len(one) == len(other) == 4
