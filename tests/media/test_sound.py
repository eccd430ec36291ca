"""Audio stays in sync with the video: any codec, gaps, delays and damage."""

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clicking_videos import BLACK, RATE, click_times, clicking_video, clicks, heard

from tests.hostile import bad_ends
from th_jax.media import MediaError, MediaFault, containers, open_video
from th_jax.media import audio as module
from th_jax.media.audio import BLOCK, decode_sound, find_missing_sound, open_sound
from th_jax.provenance import Kind, Provenance, write_video

RECORD = Provenance(kind=Kind.REAL_CROP)


def heard_apart(path: Path) -> np.ndarray:
    opened = open_sound(path)
    with closing(opened.blocks) as blocks:
        return np.concatenate(list(blocks), axis=1)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("aac", "a.mp4"), ("pcm_s16le", "a.mkv"), ("libmp3lame", "a.mp4"), ("flac", "a.mkv"), ("ac3", "a.mov")],
)
def test_clicks_keep_their_times(tmp_path: Path, codec: str, name: str) -> None:
    rate = 48000 if codec == "ac3" else RATE
    source = clicking_video(tmp_path / name, [(0.0, clicks(2.0, rate=rate))], codec=codec, rate=rate)
    np.testing.assert_allclose(click_times(source), [0.5, 1.0, 1.5], atol=0.003)
    made = write_video(tmp_path / "out.mp4", [BLACK] * 45, fps=25, provenance=RECORD, audio_from=source)
    np.testing.assert_allclose(click_times(made), [0.5, 1.0, 1.5], atol=0.003)
    assert heard(made)[1].shape[1] == pytest.approx(1.8 * rate, abs=1500)


def test_audio_from_another_process_is_complete(tmp_path: Path) -> None:
    source = clicking_video(tmp_path / "a.mkv", [(0.0, clicks(2.0))], codec="pcm_s16le")
    np.testing.assert_array_equal(heard_apart(source), clicks(2.0)[None])


def test_sound_that_begins_late_or_early(tmp_path: Path) -> None:
    late = clicking_video(tmp_path / "late.mkv", [(0.7, clicks(1.0))], codec="pcm_s16le")
    np.testing.assert_allclose(click_times(late), [1.2], atol=0.002)
    early = clicking_video(tmp_path / "early.mkv", [(-0.3, clicks(2.0))], codec="pcm_s16le")
    with open_video(early) as video:  # Matroska has no negative times: all are moved
        assert next(video.frames())[0] == 0.0
    np.testing.assert_allclose(click_times(early), [0.2, 0.7, 1.2], atol=0.002)
    made = write_video(tmp_path / "out.mp4", [BLACK] * 50, fps=25, provenance=RECORD, audio_from=late)
    np.testing.assert_allclose(click_times(made), [1.2], atol=0.003)


def test_a_gap_is_silence_and_damage_does_not_move_the_rest(tmp_path: Path) -> None:
    gap = clicking_video(tmp_path / "gap.mkv", [(0.0, clicks(0.8)), (1.1, clicks(0.9, every=0.3))], codec="pcm_s16le")
    np.testing.assert_allclose(click_times(gap), [0.5, 1.4, 1.7], atol=0.02)
    source = [(0.0, clicks(3.0))]
    damaged = clicking_video(tmp_path / "bad.mp4", source, codec="aac", images=75, damaged=lambda n: 10 <= n < 20)
    np.testing.assert_allclose(click_times(damaged), [0.5, 1.5, 2.0, 2.5], atol=0.01)


def test_streams_that_start_late(tmp_path: Path) -> None:
    """Transport streams allow it; PyAV before 19 then raises an IndexError after the last packet, and no frame is damaged."""
    noise, parts = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8), []
    for images, sounds in ((20, 1), (3, 2)):
        with av.open(str(tmp_path / "part.ts"), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 400, 400, "yuv420p", 10**9
            stream.options = {"g": "1", "qmin": "1", "qmax": "1"}
            tracks = [container.add_stream("mp2", rate=RATE, layout="mono") for _ in range(sounds)]
            for index in range(images):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
                for track in tracks:
                    frame = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.int16), format="s16", layout="mono")
                    frame.sample_rate, frame.pts, frame.time_base = RATE, 640 * index, Fraction(1, RATE)
                    container.mux(track.encode(frame))
            for encoder in (stream, *tracks):
                container.mux(encoder.encode(None))
        parts.append((tmp_path / "part.ts").read_bytes())
    (path := tmp_path / "a.ts").write_bytes(b"".join(parts))
    with open_video(path) as video:
        assert len(list(video.frames())) == 23
        assert video.damaged_frames == 0
    assert heard(path)[1].shape[1] > 0.7 * RATE


def test_implausible_times_are_ignored(tmp_path: Path) -> None:
    """Silence up to the year 2070 would be endless."""
    late = clicking_video(tmp_path / "a.mkv", [(0.0, clicks(0.6)), (1.4e9, clicks(0.6))], codec="pcm_s16le")
    np.testing.assert_allclose(click_times(late), [0.5, 1.1], atol=0.002)


def test_stereo_stays_stereo_and_odd_rates_become_usual_ones(tmp_path: Path) -> None:
    stereo = clicking_video(tmp_path / "a.mkv", [(0.0, clicks(2.0))], codec="pcm_s16le", layout="stereo")
    rate, samples = heard(stereo)
    assert (rate, samples.shape) == (RATE, (2, RATE))
    odd = clicking_video(tmp_path / "b.mkv", [(0.0, clicks(2.0, rate=10000))], codec="pcm_s16le", rate=10000)
    rate, samples = heard(odd)
    assert rate == 48000
    np.testing.assert_allclose(click_times(odd), [0.5, 1.0, 1.5], atol=0.003)


def test_audio_is_read_in_blocks_and_ends_with_its_file(tmp_path: Path) -> None:
    source = clicking_video(tmp_path / "a.mkv", [(0.0, clicks(30.0))], codec="pcm_s16le", images=750)
    blocks = list(decode_sound(str(source)))[1:]
    assert sum(block.shape[1] for block in blocks) == 30 * RATE
    assert max(block.shape[1] for block in blocks) <= BLOCK
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert 5 * RATE < heard(source)[1].shape[1] < 25 * RATE


def test_files_without_usable_audio_are_rejected(tmp_path: Path, make_video: Any, make_sound: Any) -> None:
    assert heard_apart(make_sound()).shape[1] == pytest.approx(RATE, abs=2048)
    with pytest.raises(MediaError, match=r"silent\.mp4 has no audio track"):
        open_sound(make_video("silent.mp4", frames=3))
    with pytest.raises(MediaError, match=r"a\.mkv .*codec wavpack.*not supported"):
        open_sound(clicking_video(tmp_path / "a.mkv", [(0.0, clicks(0.5))], codec="wavpack", images=10))
    broken = clicking_video(tmp_path / "b.mp4", [(0.0, clicks(0.5))], codec="aac", images=10, damaged=lambda _: True)
    with pytest.raises(MediaError, match=r"b\.mp4 has audio that cannot be decoded"):
        open_sound(broken)


@pytest.mark.parametrize(
    ("function", "within", "sentence"),
    [
        (bad_ends.is_killed, {}, "its process was killed"),
        (bad_ends.hangs, {"seconds": 0.3}, "takes longer than"),
        (bad_ends.eats_memory, {"memory": 2**30}, "MiB of memory"),
        (bad_ends.lies, {}, "returned something other than audio"),
        (bad_ends.sends_too_much, {}, "exceed their size limit"),
    ],
)
def test_a_compromised_decoder(
    tmp_path: Path, make_video: Any, monkeypatch: pytest.MonkeyPatch, function: Any, within: Any, sentence: str
) -> None:
    source = make_video("a.mp4", frames=3, sound="aac")
    monkeypatch.setattr(module, "decode_sound", function)
    monkeypatch.setattr(module, "SOUND_LIMITS", module.SOUND_LIMITS._replace(**within))
    with pytest.raises(MediaError, match=rf"a\.mp4: .*{sentence}"):
        heard_apart(source)


def tells_nothing(_: str) -> Any:
    yield 44_099, 1


def test_rate_and_channels_are_checked(make_video: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "decode_sound", tells_nothing)
    with pytest.raises(MediaError, match=r"a\.mp4: .*no audio"):
        open_sound(make_video("a.mp4", frames=3, sound="aac"))


def test_the_kind_of_sound_may_change_on_the_way() -> None:
    resampled = module._Resampler("a.mp4", RATE, 2)
    for kind, layout in (("s16p", "mono"), ("fltp", "stereo"), ("s16p", "stereo"), ("s16", "5.1"), ("s16p", "stereo")):
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        shape = (channels, 500) if kind.endswith("p") else (1, 500 * channels)
        array = np.full(shape, 0.5, np.float32) if kind == "fltp" else np.full(shape, 16384, np.int16)
        frame = av.AudioFrame.from_ndarray(array, format=kind, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, None, Fraction(1, RATE)
        samples = resampled.of(frame)
        assert (samples.dtype, samples.shape) == (np.int16, (2, 500))
        assert samples.max() > 8000


class _SmallMemory(io.FileIO):
    """A file that raises MemoryError after the given number of bytes."""

    left = 0

    def readinto(self, buffer: Any, /) -> int:
        self.left -= len(buffer)
        if self.left < 0:
            raise MemoryError
        return super().readinto(buffer)


def frames_of(path: str) -> Iterator[Any]:
    with open_video(path) as video:
        yield from video.frames()


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_out_of_memory_is_neither_end_of_file_nor_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """PyAV drops exceptions of a file's `read`, so the file records them."""
    path = str(clicking_video(tmp_path / "a.mkv", [(0.0, clicks(8.0))], codec="pcm_s16le", images=200))
    assert sum(block.shape[1] for block in itertools.islice(decode_sound(path), 1, None)) == 8 * RATE
    assert len(list(frames_of(path))) == 200
    opened = Path.open

    def small(own: Path, mode: str = "r", **settings: Any) -> Any:
        if own != Path(path):
            return opened(own, mode, **settings)
        file = _SmallMemory(own)
        file.left = int(share * own.stat().st_size)
        return file

    monkeypatch.setattr(Path, "open", small)
    reads: list[Callable[[], object]] = [lambda: list(decode_sound(path)), lambda: list(frames_of(path))]
    if not share:  # else something was heard before
        reads.append(lambda: find_missing_sound(path, seconds=None))
    for read in reads:
        with pytest.raises(MediaError, match=r"a\.mkv needs more memory") as caught:
            read()
        assert caught.value.fault is MediaFault.OVER_LIMITS


def test_audio_cut_by_out_of_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyAV drops the exception, it reports the end of the file."""
    path = clicking_video(tmp_path / "a.mkv", [(0.0, clicks(8.0))], codec="pcm_s16le", images=200)

    class Short(containers.Source):
        def read(self, size: int | None = -1, /) -> bytes:
            self.out_of_memory = self.out_of_memory or self.tell() > 0.6 * path.stat().st_size
            return b"" if self.out_of_memory else super().read(size)

    monkeypatch.setattr(containers, "Source", Short)
    blocks = decode_sound(str(path))
    with pytest.raises(MediaError, match=r"a\.mkv needs more memory"):
        list(blocks)
