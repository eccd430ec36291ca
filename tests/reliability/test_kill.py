"""Ten kills of a run, of fine-tuning and of an evaluation, each of which ends as if undisturbed; `make kill-test` has 100."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import kill_test
from tests.reliability.forks import Forks

KILLS = 10


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as made:
        yield made


class Loop(kill_test.Training):
    """The loop of train.py, its saves, logs, resumes and batches, with a step that needs no time to compile."""

    patches = ("stand-in",)

    def moments(self, chance: random.Random) -> dict[str, Any]:
        return {"change": chance.randint(1, self.whole_changes)}


class FewPeople(kill_test.Finetuning):
    people = 12

    def moments(self, chance: random.Random) -> dict[str, Any]:
        return {"change": chance.randint(1, int(1.5 * self.whole_changes * self.part))}


def kill(kind: type[kill_test.Scenario], folder: Path, forks: Forks) -> None:
    report = folder / "report.jsonl"
    said = list(kill_test.kill_until_done(kind(folder / kind.name, forks), report, seed=3, kills=KILLS))
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sum(line.get("killed", False) for line in lines) >= KILLS
    results = [line["equal"] for line in lines if "equal" in line]
    assert len(results) == len(said) >= 1
    assert all(results)


def test_a_killed_run_ends_as_an_undisturbed_one(forks: Forks, tmp_path: Path) -> None:
    kill(Loop, tmp_path, forks)


def test_a_difference_is_seen(forks: Forks, tmp_path: Path) -> None:
    """Of one bit of one leaf, and of a line that is there twice."""
    run = Loop(tmp_path, forks)
    assert run.attempt(tmp_path / "whole", None, random.Random(0)) == (0, True)
    whole = run.result(tmp_path / "whole")
    assert (whole["step"], len(whole["leaves"]), whole["saved"]) == (8, 4, [4, 6, 8])
    assert len(whole["metrics"]) == 8 + 2
    with (tmp_path / "whole" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(whole["metrics"][-1]) + "\n")
    assert run.result(tmp_path / "whole") != whole


def test_a_killed_studio_ends_its_jobs_as_an_undisturbed_one(forks: Forks, tmp_path: Path) -> None:
    kill(kill_test.Studio, tmp_path, forks)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FewPeople, kill_test.Training, kill_test.Evaluating])
def test_killed_commands_end_as_undisturbed_ones(kind: type[kill_test.Scenario], forks: Forks, tmp_path: Path) -> None:
    kill(kind, tmp_path, forks)
