"""Checks that need only a driver's headers run before tracking, and the last line reports on its audio."""

import io
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import jax
import numpy as np
import pytest
from commands import animate as main
from driver_clips import swaying, write_clip, write_uneven

from th_jax.avatars.file import save_avatar
from th_jax.driving import animate as script
from th_jax.media import open_video
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
FRAMES = 4


def recoded(source: Path, path: Path, codec: str) -> Path:
    """The video with another audio codec."""
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        picture = container.add_stream_from_template(film.streams.video[0])
        sound = container.add_stream(codec, rate=16000, layout="mono")
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        tone = (8000 * np.sin(np.arange(3200) * 0.2)).astype(np.int16)
        resampler = av.AudioResampler(format=sound.codec_context.format, layout="mono", rate=16000)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        for piece in resampler.resample(frame):
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headers")
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    save_avatar(folder / "ada.safetensors", avatar, networks=NETWORKS, provenance=Provenance(kind=Kind.GENERATED))
    frames = swaying(FRAMES)
    write_clip(folder / "heard.mp4", frames, tone=True)
    write_clip(folder / "mute.mp4", frames)
    write_uneven(folder / "silent.mkv", frames, [n / 25 for n in range(FRAMES)], clicks=[], seconds=0.2)
    recoded(folder / "mute.mp4", folder / "wavpack.mkv", "wavpack")
    recoded(folder / "mute.mp4", folder / "plain.mov", "pcm_s24be")
    np.savez(folder / "landmarks.npz", landmarks=np.random.default_rng(0).uniform(0.2, 0.8, (3, 68, 2)))
    return folder


def command(folder: Path, driver: str, out: Path, *more: str) -> list[str]:
    chosen = {"--avatar": folder / "ada.safetensors", "--driver": folder / driver, "--out": out}
    return [*(str(part) for pair in chosen.items() for part in pair), *more]


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        ("heard.mp4", [], "with sound"),
        ("plain.mov", [], "with sound"),
        ("heard.mp4", ["--require-audio"], "with sound"),
        ("heard.mp4", ["--mute"], "without sound"),
        ("mute.mp4", [], "without sound: the driver's is missing"),
        ("silent.mkv", [], "without sound: the driver's is entirely silent"),
        ("wavpack.mkv", [], "without sound: the driver's uses the unsupported codec wavpack"),
        ("landmarks.npz", [], "without sound"),
    ],
)
def test_the_last_line_reports_on_the_audio(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], driver: str, options: list[str], sentence: str
) -> None:
    assert main(command(folder, driver, tmp_path / "a.mp4", *options)) == 0
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    said = printed.split("; ")[0]  # notes on the pictures may follow
    assert said.endswith(f"25 frames/s, {sentence}")
    with open_video(tmp_path / "a.mp4") as video:
        assert video.has_audio == (sentence == "with sound")


@pytest.mark.parametrize(
    ("driver", "out", "options", "sentence"),
    [
        ("mute.mp4", "a.mp4", ["--require-audio"], "mute.mp4 is missing: omit require_audio"),
        ("silent.mkv", "a.mp4", ["--require-audio"], "silent.mkv is entirely silent: omit require_audio"),
        ("wavpack.mkv", "a.mp4", ["--require-audio"], "uses the unsupported codec wavpack: omit"),
        ("landmarks.npz", "a.mp4", ["--require-audio"], "landmarks.npz is a landmark file and has no audio"),
        ("heard.mp4", "a.gif", ["--require-audio"], "a.gif is not an MP4 file and has no audio"),
        ("heard.mp4", "a.mp4", ["--require-audio", "--mute"], "both muted and required"),
        ("heard.mp4", "a.png", ["--at", "9"], "lasts 0.16 s: there is no frame at 9 s"),
        ("ada.safetensors", "a.gif", [], "is not a readable video"),
        ("heard.mp4", "\udcff.mp4", [], "is not valid UTF-8"),
        ("heard.mp4", "no/a.mp4", [], "does not exist"),
    ],
)
def test_header_errors_are_found_before_tracking(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    driver: str, out: str, options: list[str], sentence: str,
) -> None:  # fmt: skip
    def followed(*_: Any, **__: Any) -> None:
        raise AssertionError("the driver was followed")

    monkeypatch.setattr(script, "track_driver", followed)
    monkeypatch.setattr(script, "read_landmarks", followed)
    assert main(command(folder, driver, tmp_path / out, *options)) == 1
    printed = capsys.readouterr().err.strip()
    assert sentence in printed
    assert len(printed.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_too_many_frames_for_a_gif(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the headers, and checked again when the number is known."""
    monkeypatch.setattr("th_jax.driving.driver.GIF_FRAMES", 3)
    monkeypatch.setattr(script, "track_driver", None)
    assert main(command(folder, "heard.mp4", tmp_path / "a.gif")) == 1
    assert "4 frames are too many for a GIF" in capsys.readouterr().err


def test_unknown_durations_are_accepted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal that does not support a character of the name, and a closed pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="ascii"))
        assert main(command(folder, "landmarks.npz", tmp_path / "zwü.mp4")) == 0
    assert (tmp_path / "zwü.mp4").exists()
    assert capfd.readouterr() == ("", "")
