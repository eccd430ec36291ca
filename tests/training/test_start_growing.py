"""A run that starts from weights of smaller frames: refused by default, grown where the config says so."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.tiny_runs import VIDEOS, losses, networks, optimizers
from th_jax.models.grow import grow
from th_jax.storage.tensors import leaves_by_name
from th_jax.training.programs import MetaPrograms
from th_jax.training.run import find_start
from th_jax.training.sharding import make_mesh
from th_jax.weights import load_meta, save_meta


def test_a_run_starts_from_smaller_weights_only_if_its_config_says_so(tmp_path: Path) -> None:
    smaller = networks()
    released = tmp_path / "small.safetensors"
    save_meta(
        released,
        networks=smaller,
        weights=smaller.init(jax.random.key(3)),
        perceptual=("vgg16",),
        description={"name": "small", "steps": 1, "data": "none", "licence": "CC0-1.0"},
    )
    larger = dataclasses.replace(smaller, image_size=32, embedder_size=16)
    programs = MetaPrograms(larger, optimizers(), losses(), make_mesh(), videos=VIDEOS)
    with pytest.raises(ValueError, match="start_growing"):
        find_start(programs, str(tmp_path / "checkpoints"), start_from=str(released))
    resumed, start = find_start(programs, str(tmp_path / "checkpoints"), start_from=str(released), growing=True, seed=5)
    assert not resumed
    assert start is not None
    assert start.networks == larger
    expected = grow(smaller, load_meta(released, only_generate=True).weights, larger, jax.random.key(5)).weights
    for (name, leaf), wanted in zip(leaves_by_name(start.weights).items(), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(leaf, wanted, err_msg=name)
