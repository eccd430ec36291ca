"""Fingerprints and the video list; the rest of the description is tested through checkpoints."""

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import ABOUT, state_of

from th_jax.storage import checkpoint_format as checkpoint_description
from th_jax.storage.checkpoint_format import CheckpointError, check_video_list, fingerprints, named_leaves


def test_fingerprint_is_the_same_on_host_and_device_and_sees_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    state = named_leaves(state_of(5))
    whole = fingerprints(state)
    monkeypatch.setattr(checkpoint_description, "_SMALL", -1)
    assert fingerprints(state) == whole
    assert fingerprints({name: np.asarray(leaf) for name, leaf in state.items()}) == whole
    rng = np.random.default_rng(0)
    for name, leaf in state.items():
        for _ in range(20):
            content = bytearray(np.asarray(leaf).tobytes())
            bit = 0 if leaf.dtype == bool else rng.integers(8)
            content[rng.integers(len(content))] ^= 1 << int(bit)
            altered = np.frombuffer(bytes(content), leaf.dtype).reshape(leaf.shape)
            assert fingerprints({name: altered})[name] != whole[name]
    table = np.array(state["table"])
    assert fingerprints({"table": table[::-1]})["table"] != whole["table"], "rows in another order"
    swapped = np.arange(9, dtype=np.float32).reshape(3, 3)
    before = fingerprints({"table": swapped})
    swapped[0, 1], swapped[1, 0] = swapped[1, 0], swapped[0, 1]
    assert fingerprints({"table": swapped}) != before, "two numbers in each other's place"
    assert fingerprints({"table": np.zeros((3, 0), np.float32)}) == fingerprints({"table": jnp.zeros((3, 0))})


def test_another_list_of_videos() -> None:
    check_video_list(ABOUT, "ab" * 32)
    with pytest.raises(CheckpointError, match="another list of training videos"):
        check_video_list({"config": ABOUT["config"]}, "ab" * 32)  # one that names none
    with pytest.raises(CheckpointError, match=r"digest abab.*; the data set's is cdcd"):
        check_video_list(ABOUT, "cd" * 32)
