"""Curves are drawn from a run's log; missing metrics are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import curves as main

from th_jax.evaluation.curves import draw_curves, series
from th_jax.media import read_image


def write_run(folder: Path) -> Path:
    folder.mkdir()
    lines = [{"step": step, "time": 0.0, "loss/content": 100.0 / (1 + step)} for step in range(5)]
    lines[2]["heldout/l1/box"], lines[2]["heldout/nearest_copy/l1/box"] = 0.1, 0.08
    lines[3]["loss/content"] = "nan"
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_series_skips_non_finite_values() -> None:
    lines = [{"step": 0, "x": 1.0}, {"step": 1, "x": float("nan")}, {"step": 2, "y": 3.0}, {"step": 4, "x": 2.0}]
    steps, values = series(lines, "x")
    assert (steps.tolist(), values.tolist()) == ([0, 4], [1.0, 2.0])
    assert series(lines, "z")[0].size == 0


def test_an_image_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "curves.png"
    assert main([str(write_run(tmp_path / "run")), "--out", str(out)]) == 0
    image = read_image(out)
    assert image.shape[0] > 100
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20, "lines, grid and text"


def test_every_run_is_drawn_whatever_its_folder_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[set[str]] = []
    monkeypatch.setattr(
        "th_jax.evaluation.curves.draw_curves",
        lambda runs, panels: drawn.append(set(runs)) or np.zeros((8, 8, 3), np.uint8),
    )
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    runs = [write_run(tmp_path / name) for name in ("lr_0.1", "lr_0.2", "a/heads", "b/heads")]
    for chosen in (runs[:2], runs[2:]):
        assert main([*map(str, chosen), "--out", str(tmp_path / "x.png")]) == 0
    assert drawn == [{"lr_0.1", "lr_0.2"}, {str(run) for run in runs[2:]}]


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "x.png")]) == 1
    assert "there are no metrics at" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"none of the runs .a. has any of loss/contents"):
        draw_curves({"a": [{"step": 0, "loss/content": 1.0}]}, panels=["loss/contents"])
