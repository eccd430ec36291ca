"""Damage does not end a run while an intact checkpoint exists, and write errors do not keep a process from exiting."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_states import ABOUT, assert_same_bits, shapes_of, state_of, three_in

from th_jax.storage.checkpoints import CheckpointError, Checkpoints


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1, 2 and 3."""
    return three_in(tmp_path)


@pytest.mark.parametrize("place", ["description/metadata", "state/_METADATA", "state"])
def test_a_run_resumes_from_the_newest_intact_checkpoint(three: Path, place: str) -> None:
    """For damage of the newest one's JSON or arrays; the lost step is saved again."""
    damaged = three / "00000003" / place
    if damaged.is_dir():
        for file in damaged.rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    else:
        damaged.write_bytes(damaged.read_bytes()[:-20])
    asked: list[int] = []
    with Checkpoints(three) as checkpoints:
        state, description, lost = checkpoints.resume(shapes_of(state_of(0)), check=lambda of: asked.append(of["step"]))
        assert_same_bits(state, state_of(2))
        assert (description["step"], list(lost), asked[-1]) == (2, [3], 2)
        assert lost[3].startswith(f"the checkpoint of step 3 in {three} is damaged: ")
        assert checkpoints.steps() == [1, 2]
        assert (three / "damaged-00000003-1" / "description").is_dir(), "nothing is removed"
        assert checkpoints.save(3, state_of(3), description=ABOUT)
        assert_same_bits(checkpoints.resume(shapes_of(state_of(0)))[0], state_of(3))
    shutil.rmtree(three / "00000003" / "description")
    with Checkpoints(three) as checkpoints:
        assert checkpoints.resume(shapes_of(state_of(0)))[1]["step"] == 2
        assert checkpoints.steps() == [1, 2]
    assert sorted(path.name for path in three.glob("damaged*")) == ["damaged-00000003-1", "damaged-00000003-2"]


def test_nothing_is_moved_without_an_intact_checkpoint_of_this_run(three: Path) -> None:
    with Checkpoints(three) as checkpoints:

        def refuse(_: object) -> None:
            raise CheckpointError("of other videos")

        with pytest.raises(CheckpointError, match=r"^of other videos"):
            checkpoints.resume(shapes_of(state_of(0)), check=refuse)
        for step in (1, 2, 3):
            (three / f"{step:08d}" / "description" / "metadata").write_text("{")
        with pytest.raises(CheckpointError, match=r"of step 3 in .* is damaged: .*; none of the others .* \(2, 1\)"):
            checkpoints.resume(shapes_of(state_of(0)))
        assert checkpoints.steps() == [1, 2, 3]


def test_reading_leaves_uses_the_newest_intact_checkpoint(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    (three / "00000003" / "description" / "metadata").write_text("{")
    with Checkpoints(three, read_only=True) as checkpoints:
        leaves, description = checkpoints.read(["step"])
        assert (int(leaves["step"]), description["step"]) == (int(state_of(2).step), 2)
        assert "of step 3 in" in caplog.text
        assert "falling back to the one of step 2" in caplog.text
        with pytest.raises(CheckpointError, match=r"of step 3 in .* is damaged"):
            checkpoints.read(["step"], step=3)


def test_a_save_that_fails_in_the_background_lets_the_process_end(tmp_path: Path) -> None:
    """Without threads that wait for a missing folder, and with a single error message."""
    program = (
        "import sys; from pathlib import Path; import numpy as np; from th_jax.storage.checkpoints import Checkpoints\n"
        "folder = Path(sys.argv[1]) / 'folder'; checkpoints = Checkpoints(folder)\n"
        "folder.rmdir(); folder.write_text('in the way')\n"
        "try:\n    checkpoints.save(1, {'x': np.ones(3)}, description={}); checkpoints.close()\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "cannot save step 1 in" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["", "state", "description", "state/ocdbt.process_0", "description/metadata"])
def test_swapped_files_and_folders_are_found(three: Path, place: str) -> None:
    """Each of them is whole, but belongs to another step."""
    one, other = (three / f"{step:08d}" / place for step in (3, 2))
    aside = three / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    with Checkpoints(three) as checkpoints:
        state, description, lost = checkpoints.resume(shapes_of(state_of(0)))
        assert_same_bits(state, state_of(1))
        assert (description["step"], sorted(lost)) == (1, [2, 3])
        assert all(f"of step {step} in" in said and "is damaged" in said for step, said in lost.items())
