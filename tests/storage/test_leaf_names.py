"""Leaves are named by their paths, for all kinds of nodes."""

import jax
import numpy as np

from th_jax.storage.tensors import leaf_name, leaves_by_name
from th_jax.types import NetworkState


def test_names_are_paths() -> None:
    tree = NetworkState({"down_0": [{"kernel": 1}, {"kernel": 2}]}, {"a": (3,)})
    wanted = {
        "params/down_0/0/kernel": 1,
        "params/down_0/1/kernel": 2,
        "spectral_stats/a/0": 3,
    }
    assert leaves_by_name(tree) == wanted
    assert list(leaves_by_name(tree).values()) == jax.tree.leaves(tree)
    named = jax.tree_util.tree_map_with_path(lambda path, _: leaf_name(path), tree)
    assert jax.tree.leaves(named) == list(wanted)


def test_a_bare_leaf_has_no_name() -> None:
    (name,) = leaves_by_name(np.zeros(3))
    assert name == ""
