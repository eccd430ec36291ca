"""What a run begins from: its own checkpoint of the same videos, and released rows of W in the order of its own."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from th_jax.storage.checkpoints import CheckpointError
from th_jax.training import run as meta_run

begin_or_resume = meta_run.begin_or_resume.__wrapped__  # stand-ins take the place of programs and checkpoints
released_rows = meta_run.released_rows.__wrapped__


@pytest.mark.parametrize("saved", [{"video_list": "ab" * 32}, {}])
def test_a_run_does_not_go_on_with_other_videos(saved: dict[str, str]) -> None:
    def resume(shapes: Any, *, check: Any = None, added: str = "") -> Any:
        if check is not None:
            check(saved)
        return "the state", {"step": 3}, {}

    checkpoints: Any = SimpleNamespace(latest_step=lambda: 3, resume=resume)
    programs: Any = SimpleNamespace(shapes={}, layout={})
    with pytest.raises(CheckpointError, match="another list of training videos"):
        begin_or_resume(programs, checkpoints, None, seed=0, video_list="cd" * 32)
    saved["video_list"] = "cd" * 32
    assert begin_or_resume(programs, checkpoints, None, seed=0, video_list="cd" * 32)[:2] == ("the state", 3)


def test_released_rows_come_in_the_order_of_the_runs_videos() -> None:
    meta: Any = SimpleNamespace(row_ids=("a", "b", "c"), table_rows=np.arange(6, dtype=np.float16).reshape(3, 2))

    def rows_of(*keys: str) -> Any:
        entries = [SimpleNamespace(row_key=key) for key in keys]
        return released_rows(
            meta, SimpleNamespace(split="train", videos=SimpleNamespace(entries=lambda split: entries))
        )

    np.testing.assert_array_equal(rows_of("c", "a"), [[4, 5], [0, 1]])
    assert rows_of("c", "d") is None
