"""The first look: a grid that is a grid, an image with its record, and errors in one sentence."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import first_look
from th_jax.data.records import bundled_heads, read_videos
from th_jax.figures import image_grid
from th_jax.media.read import read_image
from th_jax.models.networks import Networks
from th_jax.provenance.record import read_sidecar


def test_grid_places_every_image() -> None:
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 255, (4, 6, 3), dtype=np.uint8) for _ in range(3)] for _ in range(2)]
    grid = image_grid(rows, gap=2)
    assert grid.shape == (10, 22, 3)
    np.testing.assert_array_equal(grid[6:10, 8:14], rows[1][1])
    assert (grid[4:6] == 255).all()


def test_uneven_grids_are_rejected() -> None:
    a, b = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)
    for rows in ([[a], [a, a]], [[a, b]], []):
        with pytest.raises(ValueError, match="rows of equal length"):
            image_grid(rows)


def test_a_person_goes_through_all_four_networks() -> None:
    networks = Networks(image_size=32, base_width=4)
    person = next(itertools.islice(read_videos(bundled_heads(), "heldout"), 1))[1]
    frame, score = first_look.push_through(networks, networks.init(jax.random.key(0)), person)
    assert frame.shape == (32, 32, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 0
    assert np.isfinite(score)


def test_the_first_samples_show_people_with_their_landmarks() -> None:
    people = [record for _, record in itertools.islice(read_videos(bundled_heads(), "heldout"), 2)]
    grid = first_look.first_look_grid(people)
    assert grid.shape == (2 * 130 - 2, 6 * 130 - 2, 3)
    drawn = grid[:128, 130:258].astype(int)
    assert 0.7 < (drawn.sum(-1) == 0).mean() < 0.99  # lines on black


def test_command_line_writes_an_image_with_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "Networks", lambda image_size: Networks(image_size=32, base_width=4))
    assert first_look.main(["--out", str(tmp_path / "new")]) == 0
    path = tmp_path / "new" / first_look.FIRST_LOOK
    assert read_image(path).shape[2] == 3
    record, unchanged = read_sidecar(path)
    assert unchanged
    assert record.kind == "figure"
    assert "untrained, so it is noise" in capsys.readouterr().out


def test_command_line_rejects_an_unknown_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        first_look.main(["--out", str(tmp_path), "--image-size", "100"])
    assert "image_size must be one of" in capsys.readouterr().err
