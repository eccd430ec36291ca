"""Videos are read upright, at their real times, intact or with damage counted, or rejected with one sentence."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_video import SIZE, index_of

from th_jax.media import Limits, MediaError, open_video

MakeVideo = Callable[..., Path]


def test_frames_times_and_facts(make_video: MakeVideo) -> None:
    with open_video(make_video(frames=30, sound="aac")) as video:
        pairs = list(video.frames())
        assert video.size == SIZE
        assert video.fps == 25
        assert video.frame_count == 30
        assert video.duration == pytest.approx(1.2)
        assert video.has_audio
        assert video.rotation == video.damaged_frames == 0
    np.testing.assert_allclose([time for time, _ in pairs], np.arange(30) / 25, atol=1e-6)
    assert [index_of(frame) for _, frame in pairs] == list(range(30))
    assert pairs[0][1].shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_of_the_metadata_is_applied(make_video: MakeVideo, rotation: int) -> None:
    with open_video(make_video(frames=3, rotation=rotation)) as video:
        _, frame = next(video.frames())
        assert video.rotation == rotation
        assert video.size == (frame.shape[1], frame.shape[0])
    corners = {
        "red": frame[8, 8],
        "upper right": frame[8, -8],
        "lower right": frame[-8, -8],
        "lower left": frame[-8, 8],
    }
    # Counter-clockwise, the red corner moves from the upper left to the lower left, and on.
    where = {0: "red", 90: "lower left", 180: "lower right", 270: "upper right"}[rotation]
    np.testing.assert_allclose(corners[where].astype(int), (255, 0, 0), atol=12)


def test_variable_frame_rate_keeps_real_times(make_video: MakeVideo) -> None:
    ticks = [0, 2, 4, 40, 41, 43, 120, 130, 131, 200]
    with open_video(make_video(frames=10, ticks=ticks)) as video:
        assert [time for time, _ in video.frames()] == pytest.approx([tick / 100 for tick in ticks])
        shown = [index_of(frame) for _, frame in video.frames_at([0.03, 0.39, 0.405, 1.0, 1.305, 9.0])]
    assert shown == [1, 2, 3, 5, 7, 9]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.mpg", "clip.gif"])
def test_frames_at_agrees_with_reading_on(make_video: MakeVideo, name: str) -> None:
    codec, pix_fmt, options = {
        "clip.avi": ("mpeg4", "yuv420p", {"g": "8", "qscale": "2"}),
        "clip.mpg": ("mpeg2video", "yuv420p", {"g": "8", "bf": "2"}),
        "clip.gif": ("gif", "bgr8", {}),
    }.get(name, ("libx264", "yuv420p", {"g": "8", "bf": "3", "crf": "10"}))
    path = make_video(name, frames=50, codec=codec, pix_fmt=pix_fmt, options=options)
    wanted = [0.0, 0.01, 0.5, 0.5, 0.7, 1.13, 1.6, 1.95, 5.0]
    with open_video(path) as video:
        times, frames = zip(*video.frames(), strict=True)
        found = list(video.frames_at(wanted))
    assert len(times) >= 49
    for time, (found_time, found_frame) in zip(wanted, found, strict=True):
        expected = max(np.searchsorted(times, time + 1e-9, side="right") - 1, 0)
        assert found_time == times[expected]
        np.testing.assert_array_equal(found_frame, frames[expected])


def test_frames_at_jumps_over_what_is_not_needed(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(frames=50, options={"g": "5", "bf": "0"})
    with open_video(path) as video:
        decoded = []
        decode = video._decode
        monkeypatch.setattr(video, "_decode", lambda: (decoded.append(pair[0]) or pair for pair in decode()))
        assert [index_of(frame) for _, frame in video.frames_at([0.0, 1.62])] == [0, 40]
    assert len(decoded) < 10


def test_frames_may_be_read_again(make_video: MakeVideo) -> None:
    with open_video(make_video(frames=5)) as video:
        first = [index_of(frame) for _, frame in itertools.islice(video.frames(), 2)]
        assert first == [0, 1]
        assert [index_of(frame) for _, frame in video.frames()] == [0, 1, 2, 3, 4]


def test_descending_times_are_rejected(make_video: MakeVideo) -> None:
    with (
        open_video(make_video(frames=5)) as video,
        pytest.raises(ValueError, match=r"times must be ascending, but 0\.0"),
    ):
        list(video.frames_at([0.1, 0.0]))


def test_truncated_after_its_index(make_video: MakeVideo) -> None:
    path = make_video(frames=30, container_options={"movflags": "+faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    with open_video(path) as video:
        indices = [index_of(frame) for _, frame in video.frames()]
        assert 1 <= len(indices) < 30
        assert indices == list(range(len(indices)))
        assert len(indices) + video.damaged_frames <= video.frame_count == 30


@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("libx264", "yuv420p")])
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_damaged_frames_are_skipped_and_counted(make_video: MakeVideo, codec: str, pix_fmt: str, kept: float) -> None:
    path = make_video(frames=40, codec=codec, pix_fmt=pix_fmt, options={"g": "1"})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in (7, 21):
        start, size = packets[number]
        start, end = start + int(kept * size), start + size
        data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with open_video(path) as video:
        indices = [index_of(frame) for _, frame in video.frames()]
        assert video.damaged_frames == 2
    assert indices == [i for i in range(40) if i not in (7, 21)]


def test_any_damage_ends_in_frames_or_in_a_sentence(make_video: MakeVideo) -> None:
    path = make_video(frames=20, sound="aac")
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 30):
            data[place] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            with open_video(path) as video:
                assert sum(1 for _ in video.frames()) <= 25
        except MediaError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_titles_in_an_old_encoding(make_video: MakeVideo) -> None:
    path = make_video("clip.avi", frames=5, codec="mpeg4", options={}, title="TITLETITLE")
    assert path.read_bytes().count(b"TITLETITLE") == 1
    path.write_bytes(path.read_bytes().replace(b"TITLETITLE", b"T\xff\xfe\x80\xc3(LET\xf0"))
    with open_video(path) as video:
        assert len(list(video.frames())) == 5


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_playlists_open_nothing(tmp_path: Path, make_video: MakeVideo, text: str) -> None:
    (tmp_path / "list.mp4").write_text(text.format(make_video("other.mp4", frames=3)))
    with pytest.raises(MediaError, match="not a readable video"):
        open_video(tmp_path / "list.mp4")


def test_limits_hold_where_nothing_is_declared(make_video: MakeVideo) -> None:
    path = make_video("clip.mpg", frames=30, codec="mpeg2video", options={})
    with open_video(path, limits=Limits(frames=10)) as video:
        assert video.frame_count is None
        with pytest.raises(MediaError, match="more than 10 frames"):
            list(video.frames())


def test_missing_extra_is_named(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"reading and writing videos .* pip install 'th_jax\[video\]'"):
        open_video(path)
