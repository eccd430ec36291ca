"""Runs of several processes on this machine: stopped, killed, frozen, and started with different settings."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick_programs import XLA_FLAGS

from tests.reliability.forks import ROOT
from th_jax.storage.checkpoints import Checkpoints
from th_jax.training.run import disagreements

CONFIG = "tests/reliability/killed_experiment.py"


def test_what_differs_is_named() -> None:
    digests = np.zeros((4, 3, 32), np.uint8)
    assert disagreements(["settings", "data", "version"], digests) == []
    digests[2, 1, 5] = 1
    digests[1:, 2, 0] = 7
    assert disagreements(["settings", "data", "version"], digests) == [
        "the data of process 2 is not that of process 0",
        "the version of process 1, 2, 3 is not that of process 0",
    ]


class Hosts:
    """Processes of one run, each of which stands for a host."""

    def __init__(self, folder: Path, workdir: str, count: int, *more: str, last: tuple[str, ...] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        self.workdir = folder / workdir
        environment = {
            **os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA_FLAGS, "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(folder / f"compiled{count}"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }  # fmt: skip
        batch = ["--set", f"episodes.batch_size={max(count, 2)}"]
        self.logs = [folder / f"{workdir}.{process}.{time.monotonic_ns()}.log" for process in range(count)]
        self.running = []
        for process, log in enumerate(self.logs):
            command = [sys.executable, "train.py", "--config", CONFIG, "--workdir", str(self.workdir), *batch, *more]
            joined = ["--coordinator", address, "--processes", str(count), "--process", str(process)]
            extra = last if process == count - 1 else ()
            with log.open("w") as file:
                self.running.append(
                    subprocess.Popen([*command, *joined, *extra], cwd=ROOT, env=environment, stdout=file, stderr=file)
                )

    def wait_for_step(self, step: int) -> None:
        deadline, metrics = time.monotonic() + 600, self.workdir / "metrics.jsonl"
        while not metrics.is_file() or f'"step": {step},' not in metrics.read_text():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.running), self.said(0)[-3000:]
            time.sleep(0.02)

    def codes(self, timeout: float = 600) -> list[int]:
        return [process.wait(timeout) for process in self.running]

    def said(self, process: int) -> str:
        return self.logs[process].read_text()

    def fingerprints(self) -> dict[str, Any]:
        with Checkpoints(self.workdir / "checkpoints", read_only=True) as checkpoints:
            about = checkpoints.describe()
        assert about["step"] == 8
        return {name: leaf["fingerprint"] for name, leaf in about["leaves"].items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    run = Hosts(folder, "whole", 2)
    assert run.codes() == [0, 0], run.said(0)[-3000:]
    return run.fingerprints()


@pytest.mark.slow
def test_a_signal_to_one_of_them_stops_all_at_the_same_step(folder: Path, whole: dict[str, Any]) -> None:
    """Another one gets its own a moment later."""
    run = Hosts(folder, "stopped", 2)
    run.wait_for_step(1)
    run.running[1].send_signal(signal.SIGTERM)
    time.sleep(0.3)
    run.running[0].send_signal(signal.SIGINT)
    assert run.codes() == [75, 75], run.said(0)[-3000:] + run.said(1)[-3000:]
    steps = [re.findall(r"at step (\d+) of 8; all is saved", run.said(process)) for process in (0, 1)]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 1
    again = Hosts(folder, "stopped", 2)
    assert again.codes() == [0, 0], again.said(0)[-3000:]
    assert again.fingerprints() == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_is_named_and_the_restart_goes_on(
    number: signal.Signals, folder: Path, whole: dict[str, Any]
) -> None:
    run = Hosts(folder, f"lost{number.name}", 2)
    run.wait_for_step(3)
    run.running[1].send_signal(number)
    begun = time.monotonic()
    try:
        assert run.running[0].wait(60) not in (0, 75)
        assert time.monotonic() - begun < 60
        assert re.search(r"tasks are unhealthy \(stopped sending heartbeats\):\n1\n", run.said(0)), run.said(0)[-3000:]
    finally:
        run.running[1].kill()
    again = Hosts(folder, f"lost{number.name}", 2)
    assert again.codes() == [0, 0], again.said(0)[-3000:]
    assert again.fingerprints() == whole


@pytest.mark.slow
def test_other_settings_are_refused_by_all(folder: Path) -> None:
    run = Hosts(folder, "refused", 2, last=("--set", "seed=1"))
    assert run.codes() == [1, 1]
    for process in (0, 1):
        assert "do not agree: the settings of process 1 is not that of process 0" in run.said(process)
    assert not (run.workdir / "checkpoints").exists()


@pytest.mark.slow
def test_four_processes_and_a_restart_on_two_and_on_one(folder: Path) -> None:
    """What they restore is compared with the checksums of what was saved, to the bit."""
    short = ("--set", "steps=4")
    four = Hosts(folder, "four", 4, *short)
    assert four.codes() == [0] * 4, four.said(0)[-3000:]
    for count in (2, 1):
        more = Hosts(folder, "four", count, "--set", f"steps={8 // count + 2}", "--set", "episodes.batch_size=4")
        assert more.codes() == [0] * count, more.said(0)[-3000:]
        assert "step 4 of 6" in more.said(0) if count == 2 else "step 6 of 10" in more.said(0)
