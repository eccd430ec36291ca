"""Held-out measurement during a run: lazy, and constants are measured once."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from th_jax.data import VideoRecords
from th_jax.data.records import bundled_heads
from th_jax.evaluation import watch
from th_jax.evaluation.face_measures import check_face_models
from th_jax.evaluation.heldout import BASELINES
from th_jax.evaluation.scores import heldout_scores, real_faces
from th_jax.evaluation.watch import HeldOutWatch
from th_jax.faces import detect
from th_jax.models.networks import Networks
from th_jax.optional import install_command
from th_jax.storage.run_folder import read_metrics
from th_jax.training.run_log import RunLog
from th_jax.types import NetworkState

CHOSEN = {"image_size": 32, "people": 1, "sources": 2, "targets": 1}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The measurements in order; generated frames are the first sources."""
    calls: list[str] = []

    def real(held):
        calls.append("real")
        return real_faces(held)

    def scores(held, frames, **settings):
        calls.append("scores")
        return heldout_scores(held, frames, **settings)

    monkeypatch.setattr(watch, "real_faces", real)
    monkeypatch.setattr(watch, "heldout_scores", scores)
    monkeypatch.setattr(watch, "generate_heldout", lambda networks, averaged, held: held.source_frames[:, :1])
    return calls


@pytest.mark.parametrize("faces", [True, False])
def test_measured_at_the_first_look_and_once(faces: bool, measured: list[str], tmp_path: Path) -> None:
    watched = HeldOutWatch(VideoRecords(bundled_heads(), "heldout"), faces=faces, **CHOSEN)
    assert measured == []
    nothing = Networks(image_size=32, base_width=4), NetworkState({}, {}), {}
    with RunLog(tmp_path, total_steps=9, start_step=0, tensorboard=False, progress=False) as log:
        first = watched.evaluate(log, 3, *nothing)
        assert measured == ["real"] * faces + ["scores"] * (len(BASELINES) + 1)
        assert watched.evaluate(log, 6, *nothing) == pytest.approx(first, nan_ok=True)
    assert measured[-2:] == ["scores"] * 2
    assert measured.count("real") == faces
    baselines, *looks = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in (baselines, *looks)] == [3, 3, 6]
    assert baselines["heldout/real/l1/frame"] == 0 < looks[0]["heldout/l1/frame"]
    assert ("heldout/identity/l2" in looks[0]) == faces
    frames = watched.held.source_frames[:, :1]
    direct = heldout_scores(watched.held, frames, perceptual={}, faces=faces)
    assert {name.removeprefix("heldout/"): value for name, value in first.items()} == pytest.approx(direct, nan_ok=True)
    assert np.all([(tmp_path / "samples" / f"{step:06d}.png").is_file() for step in (3, 6)])


def test_missing_models_are_found_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    check_face_models()
    records = VideoRecords(bundled_heads(), "heldout")
    with monkeypatch.context() as patch:
        patch.setenv(detect.LANDMARK_MODEL_VARIABLE, "nowhere.dat")
        with pytest.raises(FileNotFoundError, match=r"the landmark model nowhere\.dat does not exist"):
            HeldOutWatch(records, **CHOSEN)

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ImportError, match=re.escape(f"requires dlib: {install_command('video')}")):
        HeldOutWatch(records, **CHOSEN)
    HeldOutWatch(records, faces=False, **CHOSEN)
