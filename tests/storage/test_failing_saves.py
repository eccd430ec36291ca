"""A save that fails is reported once, deletes nothing that is good, and does not stand in the way of the next one."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_states import ABOUT, assert_same_bits, shapes_of, state_of
from file_limit import files_of_at_most

from th_jax.storage.checkpoints import CheckpointError, Checkpoints


@pytest.fixture(autouse=True)
def no_late_reports() -> Iterator[None]:
    """Orbax reports failed futures when they are collected: not while another test parses Python, where CPython 3.11 fails."""
    yield
    gc.collect()


def _save_and_wait(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, state_of(step), description=ABOUT)
    checkpoints.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("limit", [0, 100, 3000])
def test_a_full_disk_costs_only_the_save(limit: int, tmp_path: Path) -> None:
    """However far the save comes; Orbax alone forgets the checkpoint that it wanted to replace, and leaves the partial one."""
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state_of(step), description=ABOUT)
        checkpoints.wait()
        for step in (3, 4):
            with files_of_at_most(limit), pytest.raises(CheckpointError, match=f"(?s)step {step} .*{tmp_path}"):
                _save_and_wait(checkpoints, step)
            checkpoints.wait()  # reported once
            assert checkpoints.steps() == [1, 2]
            assert {"00000001", "00000002"} <= set(names(tmp_path))
            assert_same_bits(checkpoints.restore(shapes_of(state_of(0)))[0], state_of(2))
        for step, left in ((5, [2, 5]), (6, [5, 6])):
            checkpoints.save(step, state_of(step), description=ABOUT)
            checkpoints.wait()
            assert checkpoints.steps() == left
        assert_same_bits(checkpoints.restore(shapes_of(state_of(0)))[0], state_of(6))
    assert names(tmp_path) == ["00000005", "00000006"]


def test_a_save_that_vanishes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orbax reports some errors of its threads to nobody."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_of(1), description=ABOUT)
        checkpoints.wait()
        with monkeypatch.context() as patched:
            patched.setattr(checkpoints._manager, "save", lambda *_, **__: True)
            checkpoints.save(2, state_of(2), description=ABOUT)
        with pytest.raises(CheckpointError, match=r"the checkpoint of step 2 was not written to .*: is the disk full"):
            checkpoints.wait()
        assert checkpoints.steps() == [1]


def test_a_slow_disk_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, slow = os.rename, [True]

    def slowly(*paths: str, **how: int) -> None:
        while slow[0]:
            time.sleep(0.01)
        rename(*paths, **how)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_of(1), description=ABOUT)
        assert checkpoints.wait_at_most(60)
        monkeypatch.setattr(os, "rename", slowly)
        checkpoints.save(2, state_of(2), description=ABOUT)
        assert not checkpoints.wait_at_most(0.1)
        slow[0] = False
        assert checkpoints.wait_at_most(60)
        assert checkpoints.steps() == [1, 2]


def test_a_checkpoint_of_an_earlier_version_lacks_leaves(tmp_path: Path) -> None:
    """Those with the given prefix begin as zeros; any other one that is missing is an error."""
    shapes = shapes_of(state_of(0))
    old = {name: leaf for name, leaf in state_of(3)._asdict().items() if name != "table"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, old, description=ABOUT)
        state, _, _ = checkpoints.resume(shapes, added="table")
        assert not state.table.any()
        assert_same_bits(state._replace(table=state_of(3).table), state_of(3))
        for added in ("", "step"):
            with pytest.raises(CheckpointError, match="its leaf table is missing"):
                checkpoints.resume(shapes, added=added)
