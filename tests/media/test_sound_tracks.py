"""Which track is used, which codecs are decoded, and when audio counts as missing."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from clicking_videos import BLACK, RATE, click_times, clicking_video, clicks, heard

from th_jax.media import MediaError, open_video
from th_jax.media import audio as module
from th_jax.media.audio import find_missing_sound, missing_sound
from th_jax.media.containers import AUDIO_DECODERS

NONE = Disposition(0)
LIGHT, LOUD = (40, 200), (2000, 12000)


@pytest.mark.parametrize(
    ("codec", "name", "rate"),
    [
        ("pcm_s24be", "a.mov", RATE), ("pcm_s32be", "a.mov", RATE), ("pcm_f32be", "a.mov", RATE), ("pcm_s8", "a.mov", RATE),
        ("pcm_s32le", "a.mkv", RATE), ("pcm_f64le", "a.mkv", RATE), ("pcm_u8", "a.avi", RATE), ("pcm_mulaw", "a.avi", 8000),
        ("pcm_bluray", "a.m2ts", 48000), ("pcm_dvd", "a.vob", 48000), ("adpcm_ima_wav", "a.avi", RATE),
        ("adpcm_ima_qt", "a.mov", RATE), ("adpcm_ms", "a.avi", RATE), ("adpcm_yamaha", "a.avi", RATE),
    ],
)  # fmt: skip
def test_plain_codings_are_decoded(tmp_path: Path, codec: str, name: str, rate: int) -> None:
    source = clicking_video(tmp_path / name, [(0.0, clicks(2.0, rate=rate))], codec=codec, rate=rate)
    np.testing.assert_allclose(click_times(source), [0.5, 1.0, 1.5], atol=0.003)
    assert find_missing_sound(str(source), seconds=None) == ""


def test_decoders_are_those_of_ffmpeg() -> None:
    for name in AUDIO_DECODERS:
        if not name.startswith("lib"):
            assert av.Codec(name, "r").type == "audio"


def two_tracks(path: Path, *, default: tuple[int | None, int | None]) -> Path:
    """A dark small and a light large video track, a quiet and a loud audio track, and which are marked as default."""
    with av.open(str(path), "w") as container:
        images: list[Any] = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        sounds: list[Any] = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for number, stream in enumerate(images):
            stream.width = stream.height = 32 * (number + 1)
            stream.pix_fmt, stream.bit_rate = "yuv420p", 100_000
            stream.disposition = Disposition.default if number == default[0] else NONE
        for number, stream in enumerate(sounds):
            stream.disposition = Disposition.default if number == default[1] else NONE
        for number, stream in enumerate(sounds):
            samples = np.full((1, RATE), LOUD[number], np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        for index in range(10):
            for number, stream in enumerate(images):
                side = 32 * (number + 1)
                frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), LIGHT[number], np.uint8), format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in images:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("default", [(0, 0), (0, 1), (1, 0), (1, 1), (None, 1), (1, None), (None, None)])
def test_the_default_tracks_are_played_as_ffmpeg_does(tmp_path: Path, default: tuple[int | None, int | None]) -> None:
    path = two_tracks(tmp_path / "a.mkv", default=default)
    with av.open(str(path)) as container:
        best = container.streams.best("video").index, container.streams.best("audio").index - 2
    for marked, taken in zip(default, best, strict=True):
        assert marked in (None, taken)
    with open_video(path) as video:
        assert video.size[0] == 32 * (best[0] + 1)
        _, frame = next(video.frames())
    assert frame.mean() == pytest.approx(LIGHT[best[0]], abs=12)
    assert heard(path)[1].mean() == pytest.approx(LOUD[best[1]], rel=0.01)


@pytest.mark.parametrize("moving", [True, False])
def test_a_cover_image_is_not_a_video_track(tmp_path: Path, moving: bool) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 200, 200, "rgb24"
        cover.disposition = Disposition.attached_pic
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(clicks(1.0)[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        packets = [*sound.encode(frame), *sound.encode(None)]
        if moving:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(BLACK, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        image = av.VideoFrame.from_ndarray(np.full((200, 200, 3), 90, np.uint8), format="rgb24")
        image.pts, image.time_base = 0, Fraction(1, 25)
        for packet in [*packets, *cover.encode(image), *cover.encode(None)]:
            container.mux(packet)
    with av.open(str(path)) as container:
        covers = [bool(stream.disposition & Disposition.attached_pic) for stream in container.streams.video]
        assert sorted(covers) == ([False, True] if moving else [True])
    if moving:
        with open_video(path) as video:
            assert video.size == (32, 32)
    else:
        with pytest.raises(MediaError, match=r"a\.mp4 contains only audio"):
            open_video(path)


def test_why_sound_is_missing(tmp_path: Path, make_video: Any) -> None:
    late = np.concatenate([np.zeros(RATE, np.int16), clicks(1.0)])
    traces = np.tile(np.array([2, -2], np.int16), RATE)
    wanted = {
        None: clicking_video(tmp_path / "late.mkv", [(0.0, late)], codec="pcm_s16le"),
        "is missing": make_video("mute.mp4", frames=3),
        "uses the unsupported codec wavpack": clicking_video(tmp_path / "a.mkv", [(0.0, late)], codec="wavpack"),
        "is entirely silent": clicking_video(tmp_path / "b.mkv", [(0.0, traces)], codec="pcm_s16le"),
        "cannot be decoded": clicking_video(tmp_path / "c.mp4", [(0.0, late)], codec="aac", damaged=lambda _: True),
    }
    assert {missing_sound(path): path for path in wanted.values()} == wanted
    assert missing_sound(wanted[None], seconds=1.4) == "is entirely silent"
    assert missing_sound(wanted[None], seconds=1.6) is None


def test_a_coding_is_rejected_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "decode_sound", None)
    path = clicking_video(tmp_path / "a.mkv", [(0.0, clicks(1.0))], codec="wavpack")
    assert find_missing_sound(str(path), seconds=None) == "uses the unsupported codec wavpack"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"a\.mp4 does not exist"):
        missing_sound(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"a\.mp4 is not a readable video"):
        missing_sound(tmp_path / "a.mp4")
