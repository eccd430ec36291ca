"""Ten thousand people in one command: it starts soon, its memory stays, and what it says can be read."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command
from tiny_people import write_tiny_weights

from th_jax.avatars import enroll
from th_jax.avatars.person_files import PersonFiles
from th_jax.data.shots import ImageOutcomes
from th_jax.types import Shots

PEOPLE = 10_000
MISSING = 40
"""People in whose photos no face is found."""


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_people(folder: Path) -> list[str]:
    """Write weights, photos and the people file; returns the options of the command."""
    write_tiny_weights(folder / "tiny.safetensors")
    with (folder / "people.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["name", "shots"])
        for number in range(PEOPLE):
            shots = folder / "photos" / f"person{number:05d}"
            shots.mkdir(parents=True)
            (shots / "1.jpg").write_bytes(number.to_bytes(2, "big"))
            lines.writerow([shots.name, f"photos/{shots.name}"])
    out = ["--meta", str(folder / "tiny.safetensors"), "--out", str(folder / "out"), "--feed-forward"]
    return [*out, "--people-file", str(folder / "people.csv"), "--consent", "none"]


BEGIN = """
import os, sys, time

begun = time.monotonic()
from th_jax.avatars import enroll
from th_jax.cli.main import main

def first(*_, **__):
    print(time.monotonic() - begun, flush=True)
    os._exit(0)

enroll.read_shots = first
enroll.check_face_models = lambda: None
sys.exit(main(["finetune", *sys.argv[1:]]) or 1)
"""


@pytest.mark.slow
def test_the_first_of_ten_thousand_is_begun_within_ten_seconds(tmp_path: Path) -> None:
    """In a process without the type checks of this suite, which take longer than the work."""
    options = write_people(tmp_path)
    done = subprocess.run([sys.executable, "-c", BEGIN, *options], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 10


@pytest.mark.slow
def test_ten_thousand_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = write_people(tmp_path)
    seen: list[float] = []

    def noise(path: Path, *, size: int, **_: Any) -> PersonFiles:
        seen.append(megabytes())
        number = int(path.name[-5:])
        if number % (PEOPLE // MISSING) == 0:
            raise ValueError(f"no face was found in {path}")
        rng = np.random.default_rng(number)
        frames = rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        points = rng.uniform(0.2, 0.8, (1, 68, 2)).astype(np.float32)
        return PersonFiles(Shots(frames, points, np.ones(1, np.float32)), ImageOutcomes(1), {})

    monkeypatch.setattr(enroll, "read_shots", noise)
    monkeypatch.setattr(enroll, "check_face_models", lambda: None)
    assert command("finetune")(options) == 1
    assert len(seen) == PEOPLE
    early, late = np.mean(seen[1000:2000]), np.mean(seen[-1000:])
    assert late - early < 30, "a few kilobytes for each person's line of the report"
    said = capsys.readouterr().out
    assert said.startswith(f"{PEOPLE - MISSING} finished, {MISSING} failed")
    assert len(said.splitlines()) < 30
    assert command("finetune")(["--merge", str(tmp_path / "out"), "--people-file", str(tmp_path / "people.csv")]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{PEOPLE - MISSING} finished, {MISSING} failed\n")
    assert len(said.splitlines()) == 22
    assert "and 20 more: see report.jsonl" in said
    names = [json.loads(line)["name"] for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines()]
    assert names == [f"person{number:05d}" for number in range(PEOPLE)]
