"""Held-out people with tiny networks and baselines: each person independently, for any chunk size."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import baselines
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.evaluation import heldout
from th_jax.evaluation.chunks import in_chunks
from th_jax.evaluation.heldout import baseline_frames, generate_heldout, sample_grid
from th_jax.evaluation.people import HeldOut, load_heldout
from th_jax.models.networks import Networks

NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture(scope="module")
def held() -> HeldOut:
    return load_heldout(VideoRecords(bundled_heads(), "heldout"), image_size=16, people=3, sources=2, targets=3)


@pytest.fixture(scope="module")
def synthesis():
    return NETWORKS.init(jax.random.key(0)).synthesis


def test_the_generator_sees_the_mean_embedding_of_the_person(held: HeldOut, synthesis, monkeypatch) -> None:
    def embed(networks, embedder, frames, points):
        assert embedder.params is synthesis.params["embedder"]
        return np.stack([frames.mean((1, 2, 3)), points[:, :, 0].mean(1)], axis=-1)

    def redraw(networks, projection, generator, embedding, points):
        assert projection.params is synthesis.params["projection"]
        assert generator.params is synthesis.params["generator"]
        paint = np.stack([embedding[:, 0], 255 * embedding[:, 1], 255 * points[:, 30, 0]], axis=-1)
        return np.broadcast_to(paint[:, None, None].astype(np.uint8), (len(paint), 16, 16, 3))

    monkeypatch.setattr(heldout, "_embed", embed)
    monkeypatch.setattr(heldout, "_redraw", redraw)
    for chunk in (1, 4, 24):
        frames = generate_heldout(NETWORKS, synthesis, held, chunk=chunk)
        for person in range(3):
            brightness = held.source_frames[person].mean((1, 2, 3)).mean()
            place = held.source_landmarks[person, :, :, 0].mean()
            for target in range(3):
                nose = held.target_landmarks[person, target, 30, 0]
                expected = np.array([brightness, 255 * place, 255 * nose])
                assert np.abs(frames[person, target, 3, 5] - expected).max() < 1


def test_people_change_nothing_for_each_other(held: HeldOut, synthesis) -> None:
    frames = generate_heldout(NETWORKS, synthesis, held)
    assert frames.shape == held.target_frames.shape
    assert frames.dtype == np.uint8
    assert frames.std() > 10
    others = HeldOut(*(part[[2, 0]] for part in held))
    np.testing.assert_array_equal(generate_heldout(NETWORKS, synthesis, others), frames[[2, 0]])
    without_pose = held._replace(target_landmarks=np.full_like(held.target_landmarks, np.nan))
    assert (generate_heldout(NETWORKS, synthesis, without_pose) != frames).mean() > 0.1, "the landmarks matter"


def test_networks_of_another_size(held: HeldOut, synthesis) -> None:
    with pytest.raises(ValueError, match=r"networks of 32 px .* frames of 16 px"):
        generate_heldout(Networks(image_size=32, base_width=4), synthesis, held)


def test_chunks() -> None:
    sizes = []

    def doubled(rows: np.ndarray, more: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return 2 * rows + more

    rows = np.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(in_chunks(doubled, (rows, np.ones((7, 2))), chunk=3), 2 * rows + 1)
    assert sizes == [3, 3, 3], "the last chunk is filled"
    with pytest.raises(ValueError, match="got 0 and 3"):
        in_chunks(doubled, (rows[:0], rows[:0]), chunk=3)


def constructed(*, points: int = 68) -> HeldOut:
    """One person whose source frame k is painted 50 k and whose landmarks lie at 0.2 k."""
    frames = np.full((1, 4, 8, 8, 3), 50, np.uint8) * np.arange(4, dtype=np.uint8)[None, :, None, None, None]
    landmarks = np.broadcast_to(0.2 * np.arange(4, dtype=np.float32)[None, :, None, None], (1, 4, points, 2)).copy()
    return HeldOut(frames, landmarks, frames[:, :2] + np.uint8(7), landmarks[:, :2] + np.float32(0.33))


def test_the_nearest_copy_is_nearest_in_landmarks() -> None:
    held = constructed()  # targets at 0.33 and 0.53
    copies = baseline_frames(held, "nearest_copy")
    assert copies[0, :, 0, 0, 0].tolist() == [100, 150]
    held.source_landmarks[0, 2, 5:] = np.nan  # the points that remain are still the nearest
    held.target_landmarks[0, 1, 0] = np.nan
    np.testing.assert_array_equal(baseline_frames(held, "nearest_copy"), copies)
    held.source_landmarks[0, 2] = np.nan  # nothing is known of it
    assert baseline_frames(held, "nearest_copy")[0, :, 0, 0, 0].tolist() == [50, 150]


def test_random_mean_and_real_frames() -> None:
    held = constructed()
    np.testing.assert_array_equal(baseline_frames(held, "real"), held.target_frames)
    assert set(baseline_frames(held, "mean_frame").ravel().tolist()) == {75}
    drawn = {seed: tuple(baseline_frames(held, "random_copy", seed=seed)[0, :, 0, 0, 0]) for seed in range(20)}
    assert {int(value) for pair in drawn.values() for value in pair} == {0, 50, 100, 150}
    again = baseline_frames(held, "random_copy")
    assert tuple(again[0, :, 0, 0, 0]) == drawn[0]
    with pytest.raises(ValueError, match=r"unknown baseline 'copy'; .*nearest_copy, random_copy, mean_frame, real"):
        baseline_frames(held, "copy")


def test_the_grid_shows_source_landmarks_real_and_generated(held: HeldOut) -> None:
    frames = np.full_like(held.target_frames, 123)
    grid = sample_grid(held, frames, people=2, target=1)
    assert grid.shape == (2 * 18 - 2, 4 * 18 - 2, 3)
    np.testing.assert_array_equal(grid[18:, :16], held.source_frames[1, 0])
    np.testing.assert_array_equal(grid[18:, 36:52], held.target_frames[1, 1])
    assert (grid[18:, 54:] == 123).all()
    drawn = grid[18:, 18:34].astype(int)
    assert 0.2 < (drawn.sum(-1) == 0).mean() < 1, "lines on black"
    assert sample_grid(held, frames).shape[0] == 3 * 18 - 2, "no more than there are"
    with pytest.raises(ValueError, match="below 3, got 8 and target 3"):
        sample_grid(held, frames, target=3)


def test_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small_vgg16) -> None:
    weights = jax.tree.map(jnp.asarray, {"vgg16": small_vgg16})
    monkeypatch.setattr(baselines, "load_perceptual", lambda networks: weights)
    assert baselines.main(["--people", "1", "--size", "32", "--no-faces"]) == 0
    printed = capsys.readouterr().out
    assert "1 people of 'heads' at 32 px: 4 targets from 8 sources each" in printed
    rows = {row.split("|")[1].strip(): row.split("|")[2:-1] for row in printed.splitlines() if row.startswith("|")}
    assert list(rows) == ["measure", "---", "l1/frame", "l1/box", "ssim", "vgg16_distance"]
    assert [cell.strip() for cell in rows["measure"]] == list(heldout.BASELINES)
    assert float(rows["ssim"][-1]) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere is not a data set"),
        (["--size", "300"], "image_size must be at most the stored"),
        (["--size", "40", "--no-faces", "--people", "1"], "divisible by 16"),
        (["--people", "0"], "must be 1 or more"),
        (["--people", "1", "--size", "-3"], "image_size must be at least 1 px, got -3"),
    ],
)
def test_command_line_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        baselines.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
