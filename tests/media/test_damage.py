"""After damage in an inter-coded stream, exactly the frames that depend on it are dropped."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from th_jax.media import Video, open_video

SIZE = 96
FRAMES = 60
GROUP = 20
"""Frames from one keyframe to the next."""

CODERS = {
    "P": {"bf": "0"},
    "B": {"bf": "3", "x264-params": "b-pyramid=normal:b-adapt=0:scenecut=0"},
    "open": {"bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"},
}


def write_moving(path: Path, options: dict[str, str]) -> None:
    """A moving pattern, so that frames depend on others."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (256, 256, 3)), (0, 0), 3)
    pattern = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.options = {"g": str(GROUP), "crf": "20", **options}
        for index in range(FRAMES):
            moved = np.ascontiguousarray(np.roll(pattern, (2 * index, 3 * index), (0, 1))[:SIZE, :SIZE])
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def damage(path: Path, packet: int, *, kept: float) -> int:
    """Zero the rest of a packet, numbered in decoding order; returns its frame's index in display order."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.pts) for p in container.demux(video=0) if p.size]
    start, size, shown = packets[packet]
    data = bytearray(path.read_bytes())
    data[start + int(kept * size) : start + size] = bytes(size - int(kept * size))
    path.write_bytes(data)
    return sorted(pts for _, _, pts in packets).index(shown)


def by_index(video: Video) -> dict[int, np.ndarray]:
    return {round(time * 25): frame for time, frame in video.frames()}


@pytest.mark.parametrize("kept", [0.0, 0.3])
@pytest.mark.parametrize("options", CODERS.values(), ids=CODERS)
@pytest.mark.parametrize("packet", [23, 25, 27])
def test_frames_are_right_or_left_out(tmp_path: Path, options: dict[str, str], packet: int, kept: float) -> None:
    path = tmp_path / "a.mp4"
    write_moving(path, options)
    with open_video(path) as video:
        whole = by_index(video)
        assert (len(whole), video.damaged_frames) == (FRAMES, 0)
    index = damage(path, packet, kept=kept)
    with open_video(path) as video:
        found = by_index(video)
        left_out = video.damaged_frames
    for number, frame in found.items():
        assert np.abs(frame.astype(int) - whole[number]).mean() < 0.1, number
    assert index not in found
    missing = FRAMES - len(found)
    assert FRAMES // 10 < missing <= left_out + 1  # a decoder may say nothing of one frame that it drops
    # With an open group, the last frames before the next keyframe belong to it.
    assert set(range(GROUP - 4)) | set(range(2 * GROUP, FRAMES)) <= set(found)


def test_the_last_intact_frame_is_on_screen_until_the_next_keyframe(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_moving(path, CODERS["P"])
    damage(path, 25, kept=0.3)
    with open_video(path) as video:
        shown = [round(time * 25) for time, _ in video.frames_at(np.array([24, 26, 32, 39, 40, 41]) / 25)]
    assert shown == [24, 24, 24, 24, 40, 41]


def test_every_keyframe_is_a_fresh_start(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_moving(path, CODERS["P"])
    damage(path, 5, kept=0.3)
    damage(path, 50, kept=0.3)
    with open_video(path) as video:
        assert sorted(by_index(video)) == [*range(5), *range(20, 50)]
        assert video.damaged_frames == 15 + 10


def test_two_videos_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    sound, hurt = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path in (sound, hurt):
        write_moving(path, CODERS["B"])
    damage(hurt, 25, kept=0.3)
    with open_video(hurt) as alone:
        wanted = sorted(by_index(alone))
    with open_video(sound) as one, open_video(hurt) as other:
        assert 40 <= len(wanted) < FRAMES
        pairs = list(zip(one.frames(), other.frames(), strict=False))
        assert [round(time * 25) for _, (time, _) in pairs] == wanted
        assert [round(time * 25) for (time, _), _ in pairs] == list(range(len(wanted)))
