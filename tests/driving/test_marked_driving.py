"""Driving embeds watermarks in the generating program; unmarked output is recorded in name, record and log."""

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from commands import animate as main
from driver_clips import swaying, write_clip

import th_jax
from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.driving import animate as animating
from th_jax.driving.output import unmarked_log
from th_jax.media import open_video
from th_jax.provenance import Kind, read_sidecar
from th_jax.provenance.record import open_sidecar
from th_jax.provenance.verify import Verdict, verify_file
from th_jax.provenance.watermark.detect import detect_video
from th_jax.provenance.watermark.messages import marking_of, message_of
from th_jax.render import render
from th_jax.training.finetune import avatar_from_embedding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar of the bundled weights, whose frames are not noise, and a driving video."""
    folder = tmp_path_factory.mktemp("marked")
    meta = th_jax.load_pretrained("heads64", only_generate=True)
    avatar = avatar_from_embedding(meta.networks, meta.weights, jnp.asarray(meta.table_rows[0]))
    save_avatar(folder / "ada.safetensors", avatar, networks=meta.networks, provenance=meta.provenance)
    write_clip(folder / "driver.mp4", swaying(12))
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedAvatar:
    return load_avatar(folder / "ada.safetensors")


def test_the_mark_is_all_that_changes(loaded: LoadedAvatar) -> None:
    points = np.random.default_rng(0).uniform(0.2, 0.8, (3, 68, 2))
    marking = marking_of(loaded.digest, size=64, kind="video")
    plain = render(loaded.networks, loaded.avatar, points, chunk=2)
    marked = render(loaded.networks, loaded.avatar, points, chunk=2, mark=marking.mark)
    error = np.square(marked.astype(float) - plain).mean((1, 2, 3))
    assert (10 * np.log10(255**2 / error) >= 37).all()
    assert marking.message == loaded.digest[:4]


def test_a_video_beside_its_driver_is_marked(folder: Path, loaded: LoadedAvatar, tmp_path: Path) -> None:
    out = tmp_path / "ada.mp4"
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "driver.mp4"), "--out", str(out)]
    assert main([*command, "--layout", "driver,avatar"]) == 0
    record, _ = read_sidecar(out)
    assert (record.kind, record.watermark) == (Kind.COMPOSITE, loaded.digest[:4])
    with open_video(out) as video:
        (mark,) = detect_video(frame for _, frame in video.frames()).marks
    assert mark.message == message_of(loaded.digest, bits=16)
    assert abs(mark.left - 64) < 2
    assert verify_file(out).verdict is Verdict.MARKED
    assert not unmarked_log(folder / "ada.safetensors").exists()


def test_unmarked_output_says_so_in_name_record_and_log(folder: Path, loaded: LoadedAvatar, tmp_path: Path) -> None:
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "driver.mp4")]
    assert main([*command, "--out", str(tmp_path / "ada.mp4"), "--unmarked-output-for-research"]) == 0
    out = tmp_path / "ada.unmarked.mp4"
    assert not (tmp_path / "ada.mp4").exists()
    record = open_sidecar(out)
    assert (record.unmarked_for_research, record.marks) == (True, ())
    with open_video(out) as video:
        assert not detect_video(frame for _, frame in video.frames()).marks
    log = unmarked_log(folder / "ada.safetensors")
    (line,) = map(json.loads, log.read_text().splitlines())
    assert (line["file"], line["avatar"]) == ("ada.unmarked.mp4", loaded.digest)
    log.unlink()
    assert verify_file(out).verdict is Verdict.NOT_FOUND


def test_without_its_line_in_the_log_nothing_leaves_unmarked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = unmarked_log(folder / "ada.safetensors")
    log.mkdir()
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "driver.mp4")]
    assert main([*command, "--out", str(tmp_path / "ada.mp4"), "--unmarked-output-for-research"]) == 1
    log.rmdir()
    assert str(log) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_terminated_run_leaves_no_partial_video(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, begun = animating.render_stream, []

    def ended(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        frames = list(stream(*arguments, **options))
        for frame in itertools.chain.from_iterable([frames] * 20):  # an encoder keeps the first ones to itself
            yield frame
            if any(tmp_path.iterdir()):
                begun.append(True)
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(animating, "render_stream", ended)
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "driver.mp4")]
    assert main([*command, "--out", str(tmp_path / "ada.mp4")]) == 75
    assert "interrupted: nothing was written" in capsys.readouterr().err
    assert begun == [True], "a file that was begun"
    assert not list(tmp_path.iterdir())


def test_a_digest_that_is_too_short_is_rejected() -> None:
    with pytest.raises(ValueError, match="4 hexadecimal digits, got 'abc'"):
        message_of("abc", bits=16)
    assert marking_of("f" * 64, size=32, kind="still") is None
