"""train.py as its users run it: a whole run, one that is stopped and goes on, one that blows up, and mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import command, release
from quick_programs import XLA_FLAGS

from th_jax.storage.checkpoints import Checkpoints
from th_jax.training.run import RunStart
from th_jax.training.run_log import RunLog, read_metrics
from th_jax.weights import load_meta

ROOT = Path(__file__).parent.parent
CONFIG = "tests/tiny_experiment.py"

train = command("train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the runs, and compiled programs, which all of them share."""
    return tmp_path_factory.mktemp("runs")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    cache["XLA_FLAGS"] = XLA_FLAGS
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments],
        env={**os.environ, **cache, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def run(folder: Path, *arguments: str, config: str | None = CONFIG) -> tuple[int, str, str]:
    """Exit code, output, errors; a traceback is never right."""
    process = start(folder, *(["--config", config] if config else []), *arguments)
    out, err = process.communicate(timeout=900)
    assert "Traceback" not in err, err[-3000:]
    return process.returncode, out, err


def fingerprints(workdir: Path) -> dict[str, int]:
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        record = checkpoints.describe()
    assert record["step"] == 6
    return {name: leaf["fingerprint"] for name, leaf in record["leaves"].items()}


@pytest.fixture(scope="module")
def whole_run(folder: Path) -> Path:
    workdir = folder / "whole"
    code, out, err = run(folder, "--workdir", str(workdir), "--profile", "--profile-steps", "1")
    assert code == 0, err[-3000:]
    assert "finished with step 6 of 6; all is saved" in out
    assert f"profile of the steps 1 to 1: {workdir}/profile" in err
    return workdir


def test_a_run_shows_its_health_in_its_folder(whole_run: Path) -> None:
    assert json.loads((whole_run / "config.json").read_text())["networks"]["base_width"] == 4
    lines = read_metrics(whole_run / "metrics.jsonl")
    by_step = {step: {} for step in range(7)}
    for line in lines:
        by_step[line["step"]] |= line
    assert {"loss/content", "loss/pixel", "time/waiting_share", "skipped"} <= by_step[1].keys()
    assert "loss/discriminator_hinge" not in by_step[2]
    assert {"loss/discriminator_hinge", "score/real", "rate/adversary"} <= by_step[3].keys()
    assert {"health/gradient_adversarial", "health/dead_trunk", "health/adversary_share"} <= by_step[4].keys()
    assert {"heldout/l1/box", "heldout/nearest_copy/l1/box", "heldout/mean_frame/ssim"} <= by_step[3].keys()
    assert "heldout/l1/box" in by_step[6]
    assert all(np.isfinite(line["loss/generator"]) for line in lines if "loss/generator" in line)
    assert list(whole_run.glob("tensorboard/events*"))
    assert (whole_run / "samples" / "000006.png").is_file()
    assert len(list((whole_run / "profile").rglob("*.xplane.pb"))) == 1
    with Checkpoints(whole_run / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 4, 6]


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(folder: Path, whole_run: Path) -> None:
    workdir = folder / "stopped"
    process = start(folder, "--config", CONFIG, "--workdir", str(workdir))
    deadline = time.monotonic() + 600
    # The first line is of the health before the first step, which then takes a second or more to trace.
    while not (workdir / "metrics.jsonl").is_file() or '"health/' not in (workdir / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err[-3000:]
    assert "stopped by SIGTERM at step" in out
    code, out, err = run(folder, "--workdir", str(workdir), "--config.start_from=unknown")
    assert code == 0, err[-3000:]
    assert "start_from is not used: the run continues from step" in out + err
    assert fingerprints(workdir) == fingerprints(whole_run)
    steps = [line["step"] for line in read_metrics(workdir / "metrics.jsonl") if "time/step" in line]
    assert steps == sorted(set(steps)), "each step stands once in the curve"


@pytest.mark.slow
def test_a_run_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before(folder: Path, whole_run: Path) -> None:
    workdir = shutil.copytree(whole_run, folder / "damaged")
    description = workdir / "checkpoints" / "00000006" / "description" / "metadata"
    description.write_text(description.read_text()[:-9])
    code, out, err = run(folder, "--workdir", str(workdir))
    assert code == 0, err[-3000:]
    assert "DAMAGED: the checkpoint of step 6 in" in err
    assert "continues from the newest intact checkpoint, step 4" in err
    assert "finished with step 6 of 6" in out
    (resumed,) = [line for line in read_metrics(workdir / "metrics.jsonl") if "resumed/damaged" in line]
    assert (resumed["step"], resumed["resumed/damaged"], resumed["resumed/newest_damaged"]) == (4, 1, 6)
    assert fingerprints(workdir) == fingerprints(whole_run)


def test_a_damaged_checkpoint_is_told_in_the_log_and_in_the_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state: Any = None
    with RunLog(tmp_path, total_steps=9, start_step=4, tensorboard=False) as log:
        RunStart(state, 4).report(log)
        RunStart(state, 4, {8: "that of step 8 is damaged", 6: "that of step 6 is damaged"}).report(log)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["step"], line["resumed/damaged"], line["resumed/newest_damaged"]) == (4, 2, 8)
    said = capsys.readouterr().err
    assert said.count("DAMAGED: that of step") == 2
    assert "continues from the newest intact checkpoint, step 4; damaged checkpoints were moved to checkpoints/" in said


def test_a_run_that_blows_up_stops_with_its_batch(folder: Path) -> None:
    """The bundle is repeated to the bit by one command, which knows neither the run nor its data."""
    workdir = folder / "blown"
    wild = ["learning_rate=1e30", "warmup=0"]
    settings = [f"--config.optimizers.synthesis.{setting}" for setting in wild]
    code, _, err = run(
        folder, "--workdir", str(workdir), *settings, "--config.steps=40", "--config.adversary.content_steps=40"
    )
    assert code == 1
    assert "the last 3 steps in a row had a loss or gradient that is not finite or far" in err
    assert "there is no intact checkpoint before step" in err
    (bundle,) = (workdir / "replay").iterdir()
    moved = bundle.rename(folder / "bundle")
    shutil.rmtree(workdir)
    code, out, err = run(folder, "--replay", str(moved), config=None)
    assert code == 0, err
    assert "<- not finite" in out
    assert "<- differs" not in out
    assert f"step {int(bundle.name)} is repeated to the bit" in out


@pytest.fixture
def precision() -> Iterator[None]:
    """The command sets JAX's precision of products; it is put back."""
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


def test_dry_run_tells_what_would_run(precision: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--config", CONFIG, "--dry-run", "--config.steps=600"]) == 0
    out = capsys.readouterr().out
    for part in ("base_width: 4", "parameters  embedder", "video table", "table/rows", "bytes on a device", "GFLOP"):
        assert part in out
    assert "a step of synthesis (from step 0 of 600)" in out
    assert "a step of synthesis and discriminator (from step 2 of 600)" in out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data.folder=nowhere", "nowhere"),
        ("networks.pool=max", "pool must be one of sum, mean"),
        ("losses.preset=best", "unknown loss weights 'best'"),
        ("start_from=unknown", "unknown is neither a file of released weights nor a readable run"),
    ],
)
def test_settings_that_cannot_be_had_are_one_sentence(
    argument: str, message: str, precision: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["--config", CONFIG, "--workdir", str(tmp_path / "mistake"), f"--config.{argument}"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "mistake").exists(), "nothing is left of a run that never began"


@pytest.mark.slow
def test_a_release_begins_another_run(
    folder: Path, whole_run: Path, precision: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With W's own rows where the videos are the same, and settled anew where W was left out."""
    described = ["--name", "tiny", "--license", "CC0-1.0"]
    for kind, more in (("whole", []), ("means", ["--mean-pooling"])):
        assert release([str(whole_run), "--out", str(folder / f"{kind}.safetensors"), *described, *more]) == 0
    meta = load_meta(folder / "whole.safetensors")
    assert meta.description["steps"] == 6
    assert meta.table_rows is not None
    assert meta.table_rows.shape == (192, 32)
    begin = ["--config.steps=1"]
    code, out, _ = run(
        folder, "--workdir", str(folder / "on"), f"--config.start_from={folder}/whole.safetensors", *begin
    )
    assert (code, "finished with step 1 of 1" in out) == (0, True)
    (line,) = (line for line in read_metrics(folder / "on" / "metrics.jsonl") if "health/row_norm" in line)
    visited = np.linalg.norm(meta.table_rows, axis=1)
    assert visited.min() <= line["health/row_norm"] <= visited.max()
    refused = ["--workdir", str(folder / "no"), f"--config.start_from={folder}/means.safetensors", *begin]
    assert train(["--config", CONFIG, *refused]) == 1
    assert "pool='mean'" in capsys.readouterr().err


def test_a_release_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release([str(tmp_path / "no"), "--out", "x.safetensors", "--name", "x", "--licence", "x"]) == 1
    assert "th-jax release:" in capsys.readouterr().err


def test_another_network_does_not_go_on_from_a_run(
    whole_run: Path, precision: None, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--config.networks.base_width=8", "--config.steps=8"]
    assert train(["--config", CONFIG, "--workdir", str(whole_run), *other]) == 1
    assert "belongs to a different state" in capsys.readouterr().err
    assert json.loads((whole_run / "config.json").read_text())["networks"]["base_width"] == 4
