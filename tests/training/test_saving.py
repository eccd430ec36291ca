"""What a run does when saves fail, and when its steps go wrong again and again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import tiny_batch

from th_jax.storage.checkpoints import CheckpointError, Checkpoints
from th_jax.training import run as running
from th_jax.training.run import Rollback
from th_jax.training.run_log import RunLog, read_metrics

RunSaver: Any = running.RunSaver
ABOUT = {"config": {"seed": 0}, "videos": 12, "video_list": "ab" * 32}


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins take the place of programs and states."""
    for name in ("__init__", "save", "roll_back", "_earlier"):
        monkeypatch.setattr(RunSaver, name, getattr(RunSaver, name).__wrapped__)
    monkeypatch.setattr(running, "save_bundle", running.save_bundle.__wrapped__)


class State(NamedTuple):
    step: Any
    skipped: Any
    skipped_in_a_row: Any
    weights: Any


def state_at(step: int, *, in_a_row: int = 0, weights: float | None = None) -> State:
    whole = (jnp.asarray(number, jnp.int32) for number in (step, 2 * in_a_row, in_a_row))
    return State(*whole, jnp.full((4,), float(step) if weights is None else weights))


def programs(resets: tuple[int, ...] = ()) -> Any:
    shapes = jax.eval_shape(lambda: state_at(0))
    layout = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)
    schedule = SimpleNamespace(resets_table_at=lambda step: step in resets)
    return SimpleNamespace(shapes=shapes, layout=layout, schedule=schedule)


class Run:
    """A run of a few steps in a folder."""

    def __init__(self, folder: Path, *, resets: tuple[int, ...] = (), **how: Any) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=9, keep_best=True)
        self.log = RunLog(folder, total_steps=99, start_step=0, tensorboard=False)
        self.saver = RunSaver(str(folder), programs(resets), self.checkpoints, self.log, description=ABOUT, **how)

    def roll_back(self, step: int, *, in_a_row: int = 3, most: int = 3) -> State:
        metrics = {"loss/generator": jnp.float32(np.nan), "norm/row": jnp.float32(0.1)}
        bad = state_at(step, in_a_row=in_a_row, weights=np.inf)
        return self.saver.roll_back(bad, tiny_batch(episodes=2), metrics, step=step, most=most)

    def metrics(self, name: str) -> list[tuple[int, float]]:
        lines = read_metrics(self.folder / "metrics.jsonl")
        return [(line["step"], line[name]) for line in lines if name in line]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    made = Run(tmp_path)
    yield made
    made.log.close()
    made.checkpoints.close()


def test_a_failing_save_is_reported_and_the_next_one_counts(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> bool:
        raise CheckpointError("cannot save: No space left on device")

    run.saver.save(2, state_at(2))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", full)
        run.saver.save(4, state_at(4))
        run.saver.save(6, state_at(6))
        with pytest.raises(CheckpointError, match="No space left"):
            run.saver.save(7, state_at(7), last=True)
    assert run.metrics("saving/failed") == [(4, 1), (6, 2)]
    assert capsys.readouterr().err.count("NOT SAVED: cannot save: No space left on device; training continues") == 2
    run.saver.save(8, state_at(8), last=True)
    assert run.checkpoints.steps() == [2, 8]


def test_a_failure_in_the_background_is_reported_at_the_next_save_which_is_tried(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*_: Any) -> bool:
        raise CheckpointError("cannot write the checkpoint of step 2")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "wait_at_most", failed)
        run.saver.save(4, state_at(4))
    run.checkpoints.wait()
    assert run.checkpoints.steps() == [4]
    assert run.metrics("saving/failed") == [(4, 1)]


def test_a_slow_disk_skips_a_save_but_not_the_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "wait_at_most", lambda *_: False)
    run.saver.save(4, state_at(4))
    assert run.checkpoints.steps() == []
    run.saver.save(5, state_at(5), last=True)
    assert run.checkpoints.steps() == [5]
    assert run.metrics("saving/failed") == [(4, 1), (5, 2)]


@pytest.mark.parametrize(
    ("name", "kept"), [("heldout/l1/box", 0.25), ("-heldout/ssim", -0.5), ("other", None), ("", None)]
)
def test_the_score_of_a_checkpoint_is_that_of_its_own_state(name: str, kept: float | None, tmp_path: Path) -> None:
    run = Run(tmp_path, keep_best=name)
    run.saver.save(2, state_at(2), scores={"heldout/l1/box": 0.25, "heldout/ssim": 0.5})
    run.saver.save(4, state_at(4), last=True)
    assert run.checkpoints.describe(step=2).get("score") == kept
    assert "score" not in run.checkpoints.describe(step=4)


def test_a_run_returns_to_the_state_before_the_bad_steps(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (2, 4, 6, 8):
        run.saver.save(step, state_at(step))
    state = run.roll_back(9)  # the steps 6, 7 and 8 were skipped, so that 8 holds what 6 does
    np.testing.assert_array_equal(state.weights, 6.0)
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (9, 6, 0)
    assert run.metrics("rollback/to") == [(9, 6)]
    assert "ROLLED BACK: the last 3 steps in a row" in capsys.readouterr().err
    run.checkpoints.wait()
    restored, about = run.checkpoints.restore(programs().shapes)
    np.testing.assert_array_equal(restored.weights, 6.0)
    assert (about["step"], about["rollbacks"]) == (9, [[9, 6]])
    assert (run.folder / "replay" / "000008" / "batch.0.npz").is_file()


def test_each_time_further_back_and_then_no_more(run: Run) -> None:
    for step in (2, 4):
        run.saver.save(step, state_at(step))
    assert float(run.roll_back(9, in_a_row=4).weights[0]) == 4.0
    assert float(run.roll_back(12).weights[0]) == 2.0, "neither what it just came from nor its copy"
    with pytest.raises(CheckpointError, match="there is no intact checkpoint before step 12 to return to"):
        run.roll_back(15)
    run.saver.save(16, state_at(16))
    assert float(run.roll_back(20).weights[0]) == 16.0
    with pytest.raises(CheckpointError, match=r"after 3 rollbacks; train.py --replay .*000023 repeats the last"):
        run.roll_back(24)


def test_a_damaged_checkpoint_is_passed_over(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (2, 4):
        run.saver.save(step, state_at(step))
    run.checkpoints.wait()
    (run.folder / "checkpoints" / "00000004" / "description" / "metadata").write_text("{")
    assert float(run.roll_back(9).weights[0]) == 2.0
    assert "DAMAGED: the checkpoint of step 4" in capsys.readouterr().err


def test_a_resumed_run_remembers_its_rollbacks(run: Run) -> None:
    for step in (2, 4):
        run.saver.save(step, state_at(step))
    run.roll_back(9)
    run.checkpoints.wait()
    begin: Any = running.begin_or_resume.__wrapped__
    begun = begin(programs(), run.checkpoints, None, seed=0, video_list=ABOUT["video_list"])
    assert (begun.step, begun.rollbacks) == (9, (Rollback(9, 4),))


def test_no_return_before_the_reset_of_w(tmp_path: Path) -> None:
    """The state before it belongs to another stage."""
    run = Run(tmp_path, resets=(5,))
    run.saver.save(4, state_at(4))
    with pytest.raises(CheckpointError, match="in a stage that began after the last checkpoint before them"):
        run.roll_back(9)
