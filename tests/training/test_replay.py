"""The batch that stopped a run comes back as it was."""

from pathlib import Path

import numpy as np
import pytest
from tiny_runs import equal_bits, tiny_batch

from th_jax.training.run import load_batch, save_batch


def test_a_batch_comes_back(tmp_path: Path) -> None:
    batch = tiny_batch(episodes=2)
    batch.target_landmarks[0, 0] = np.nan
    path = tmp_path / "replay" / "000007.npz"
    save_batch(str(path), batch)
    assert equal_bits(load_batch(path), batch)
    assert [file.name for file in path.parent.iterdir()] == ["000007.npz"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"saved batch .* does not exist"):
        load_batch(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no batch")
    with pytest.raises(ValueError, match=r"text\.npz is not a saved batch .* damaged: it is not an npz file$"):
        load_batch(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"one\.npy is not a saved batch .* it is not an npz file$"):
        load_batch(tmp_path / "one.npy")
    np.savez(tmp_path / "other.npz", frames=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz is not a saved batch .* it lacks an array of source_frames, "):
        load_batch(tmp_path / "other.npz")
    path = tmp_path / "whole.npz"
    save_batch(str(path), tiny_batch(episodes=2))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"whole\.npz is not a saved batch"):
        load_batch(path)
