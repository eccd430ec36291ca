"""A release belongs to the videos that its run was trained on: rows of W stand for nobody else."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import release as release_command
from tiny_runs import equal_bits, largest_difference

from th_jax.data.video_list import VideoEntry, VideoList, row_key, save_video_list
from th_jax.models.networks import Networks
from th_jax.storage.checkpoints import CheckpointError, Checkpoints
from th_jax.storage.run_folder import write_config
from th_jax.training.released import model_card, release
from th_jax.weights import load_meta


def videos(*names: str) -> VideoList:
    entries = tuple(VideoEntry(row_key(name), name, name, 2, 0, place) for place, name in enumerate(names))
    return VideoList("tiny", 68, 16, True, shards={"train": 1}, splits={"train": entries})


def run_of(folder: Path, *, seed: int = 0, **described: str) -> Path:
    """A run's folder with a checkpoint, and its data set of two videos."""
    save_video_list(videos("ada", "eve"), folder)
    weights = Networks(image_size=16, base_width=4).init(jax.random.key(seed))
    state = {
        "weights": weights,
        "averaged": weights.synthesis,
        "discriminator_updates": jnp.int32(8),
        "table": {"rows": jnp.arange(256 * 32, dtype=jnp.float32).reshape(256, 32)},
    }
    config = {
        "networks": {"image_size": 16, "base_width": 4},
        "perceptual": [],
        "data": {"folder": str(folder), "split": "train"},
    }
    write_config(folder / "run", config)
    with Checkpoints(folder / "run" / "checkpoints") as checkpoints:
        checkpoints.save(4, state, description={"config": config} | described)
    return folder / "run"


def test_a_release_has_the_rows_of_its_videos_and_refuses_those_of_others(tmp_path: Path) -> None:
    run, out = run_of(tmp_path, video_list=videos("ada", "eve").digest()), tmp_path / "tiny.safetensors"
    about = {"name": "tiny", "licence": "CC0-1.0", "dtype": "float32"}
    release(run, out, **about)
    meta = load_meta(out)
    assert list(meta.row_ids) == [row_key("ada"), row_key("eve")]
    np.testing.assert_array_equal(meta.table_rows, np.arange(64).reshape(2, 32))
    assert meta.description["config"]["data"] == {"folder": tmp_path.name, "split": "train"}
    assert str(tmp_path).encode() not in out.read_bytes()

    save_video_list(videos("eve", "ada"), tmp_path)
    with pytest.raises(CheckpointError, match="belongs to another list of training videos"):
        release(run, tmp_path / "other.safetensors", **about)
    assert not (tmp_path / "other.safetensors").exists()


def test_a_run_that_does_not_say_which_videos_it_is_of_is_not_released(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to another list of training videos"):
        release(run_of(tmp_path), tmp_path / "tiny.safetensors", name="tiny", licence="CC0-1.0")


def test_a_release_may_be_averaged_with_the_weights_it_started_from(tmp_path: Path) -> None:
    digest = videos("ada", "eve").digest()
    about = {"licence": "CC0-1.0", "dtype": "float32"}
    files = []
    for seed, name in enumerate(("first", "second")):
        folder = tmp_path / name
        folder.mkdir()
        files.append(folder / "weights.safetensors")
        release(run_of(folder, seed=seed, video_list=digest), files[-1], name=name, **about)
    run, out = tmp_path / "second" / "run", tmp_path / "mean.safetensors"
    release(run, out, name="mean", earlier=files[0], share=0.75, **about)
    first, second, mean = (load_meta(file) for file in (*files, out))
    for part in ("embedder", "projection"):
        assert equal_bits(mean.weights.synthesis.params[part], second.weights.synthesis.params[part])
    old, new, found = (
        (of.weights.synthesis.params["generator"], of.weights.discriminator.params) for of in (first, second, mean)
    )
    assert largest_difference(found, jax.tree.map(lambda a, b: 0.25 * a + 0.75 * b, old, new)) < 1e-6
    # u and v belong to the averaged kernels: their sigma is the largest singular value.
    kernel = mean.weights.synthesis.params["generator"]["residual_0"]["conv_0"]["kernel"]
    stats = mean.weights.synthesis.spectral_stats["generator"]["residual_0"]["conv_0"]
    matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
    assert stats["v"] @ matrix @ stats["u"] == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-2)
    assert mean.description["averaged_with"] == {**first.provenance.weights, "share": 0.75}
    assert list(mean.row_ids) == list(second.row_ids)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_outside_its_range_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match="the share of the run in the average must be between 0 and 1"):
        release(tmp_path, tmp_path / "x.safetensors", name="x", licence="CC0-1.0", share=share)


def test_other_networks_are_not_averaged(tmp_path: Path) -> None:
    run = run_of(tmp_path, video_list=videos("ada", "eve").digest())
    with pytest.raises(ValueError, match="heads64 cannot be averaged with this run: its networks are"):
        release(run, tmp_path / "x.safetensors", name="x", licence="CC0-1.0", earlier="heads64")
    assert not (tmp_path / "x.safetensors").exists()


def test_the_command_averages_and_refuses_a_share_of_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = run_of(tmp_path, video_list=videos("ada", "eve").digest()), tmp_path / "mean.safetensors"
    command = [str(run), "--name", "mean", "--license", "CC0-1.0", "--out", str(out)]
    assert release_command([*command, "--share", "0.6"]) == 1
    assert "name them with --average-with" in capsys.readouterr().err
    assert not out.exists()
    assert release_command([*command, "--average-with", str(run)]) == 0
    about = load_meta(out).description
    assert about["averaged_with"]["share"] == 0.7
    assert "\n| averaged with | run; share of this run 0.7 |\n" in model_card(dict(about), digest="0" * 64)
