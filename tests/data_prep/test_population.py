"""Who the rendered people are, and scores by group."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.heads.photo_identity import CHILDREN, is_male
from data_prep.tools import population
from data_prep.tools.population import Attributes, attributes, by_group, main, read_scores, shares


def test_shares_are_those_of_the_renderers_odds() -> None:
    people = [attributes(seed) for seed in range(400)]
    found = shares(people)
    assert all(abs(sum(values.values()) - 1) < 1e-9 for values in found.values())
    assert found["gender"]["male"] == np.mean([is_male(seed) for seed in range(400)])
    assert abs(found["age"]["child"] - CHILDREN) < 0.06  # three standard deviations
    assert set(found["skin"]) <= set(population.TONES)
    assert all(person.beard == "none" for person in people if person.gender == "female" or person.age == "child")


def test_a_group_has_the_mean_of_its_people(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(seed: int) -> Attributes:
        return Attributes("male" if seed % 2 else "female", "adult", "light", "short", "none", "none", "tee")

    monkeypatch.setattr(population, "attributes", known)
    scores = {seed: np.array([seed, seed + 1.0, np.nan]) for seed in range(4)}
    found = by_group(scores)
    assert found["gender", "female"].value == pytest.approx(np.mean([0, 1, 2, 3]))
    assert found["gender", "male"].value == pytest.approx(np.mean([1, 2, 3, 4]))
    assert found["gender", "male"].people == 2
    assert found["age", "adult"].people == 4


def write_cell(folder: Path, name: str, values: list[float | None]) -> None:
    path = folder / "cells" / "ours" / "T08" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 3, "tables": {"FT": {"ssim": values}}, "about": {}}))


def test_scores_are_read_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_cell(tmp_path, "000-photo-100003", [0.5, None])
    write_cell(tmp_path, "001-photo-100004", [0.25, 0.75])
    scores = read_scores(tmp_path, shots=8, method="FT", measure="ssim")
    np.testing.assert_array_equal(scores[100003], [0.5, np.nan])
    np.testing.assert_array_equal(scores[100004], [0.25, 0.75])
    assert main(["--scores", str(tmp_path), "--measure", "ssim"]) == 0
    assert "| gender: " in capsys.readouterr().out
    assert main(["--scores", str(tmp_path), "--measure", "sharpness"]) == 1
    assert "it has ssim" in capsys.readouterr().err


def test_counts_are_a_table_and_mistakes_are_named(capsys: pytest.CaptureFixture) -> None:
    assert main(["--people", "10"]) == 0
    assert "| gender | " in capsys.readouterr().out
    assert main(["--people", "0"]) == 1
    assert "--people must be 1 or more" in capsys.readouterr().err
    assert main(["--people", "2", "--first-seed", "899999"]) == 1
    assert "reserved" in capsys.readouterr().err
