"""A release belongs to the videos that its run was trained on: rows of W stand for nobody else."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.data.video_list import VideoEntry, VideoList, row_key, save_video_list
from th_jax.models.networks import Networks
from th_jax.storage.checkpoints import CheckpointError, Checkpoints
from th_jax.storage.run_folder import write_config
from th_jax.training.released import release
from th_jax.weights import load_meta


def videos(*names: str) -> VideoList:
    entries = tuple(VideoEntry(row_key(name), name, name, 2, 0, place) for place, name in enumerate(names))
    return VideoList("tiny", 68, 16, True, shards={"train": 1}, splits={"train": entries})


def run_of(folder: Path, **described: str) -> Path:
    """A run's folder with a checkpoint, and its data set of two videos."""
    save_video_list(videos("ada", "eve"), folder)
    weights = Networks(image_size=16, base_width=4).init(jax.random.key(0))
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
