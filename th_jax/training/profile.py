"""Traces of a few training steps with `jax.profiler`, after their program was compiled."""

from types import TracebackType
from typing import Any

import jax

from th_jax.training.optimizers import AdversarySchedule
from th_jax.training.run_log import RunLog

PROFILE_FOLDER = "profile"


def steps_to_profile(schedule: AdversarySchedule, *, start_step: int, total_steps: int, count: int) -> range:
    """Return the first `count` steps in a row whose program has run before: same players in the step before them.

    Args:
        schedule: stages of the run.
        start_step: first step of this process, whose program is compiled there.
        total_steps: last step of the run.
        count: number of steps to trace.

    Raises:
        ValueError: if there are no such steps before the end of the run.
    """
    for first in range(start_step + 1, total_steps - count + 1):
        if len({schedule.players(step) for step in range(first - 1, first + count)}) == 1:
            return range(first, first + count)
    raise ValueError(
        f"a profile of {count} steps needs {count + 1} steps of one stage, but there are too few between step "
        f"{start_step} and {total_steps}: lower --profile-steps or raise steps"
    )


class StepProfiler:
    """Profile of a run: `with StepProfiler(log, ...) as profiler`, and in the loop `profiler.before` and `profiler.after`.

    Args:
        log: log of the run; the trace is written to its folder, by process 0 only.
        schedule: stages of the run.
        start_step: first step of this process.
        total_steps: last step of the run.
        count: number of steps to trace; 0 traces nothing.

    Raises:
        ValueError: if so few steps remain that all of them could include compilation.
    """

    def __init__(
        self, log: RunLog, schedule: AdversarySchedule, *, start_step: int, total_steps: int, count: int
    ) -> None:
        """Choose the steps."""
        self._log = log
        self._running = False
        self.steps = range(0)
        if count and log.folder is not None:
            self.steps = steps_to_profile(schedule, start_step=start_step, total_steps=total_steps, count=count)

    def __enter__(self) -> "StepProfiler":
        """Return the profiler itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write a trace that is still running, when the run stops early."""
        self._stop()

    def before(self, step: int) -> None:
        """Start the trace if `step` is the first of the traced steps."""
        if self._log.folder is not None and self.steps and step == self.steps[0]:
            jax.profiler.start_trace(self._log.folder / PROFILE_FOLDER)
            self._running = True

    def after(self, step: int, metrics: Any) -> None:
        """Wait for the metrics of the last traced step, and write the trace."""
        if self.steps and step == self.steps[-1]:
            jax.block_until_ready(metrics)
            self._stop()

    def _stop(self) -> None:
        if not self._running:
            return
        self._running = False
        jax.profiler.stop_trace()
        self._log.message(
            f"profile of the steps {self.steps[0]:,} to {self.steps[-1]:,}: {self._log.workdir}/{PROFILE_FOLDER} "
            "(TensorBoard's profile plugin shows it; https://ui.perfetto.dev opens its *.trace.json.gz)"
        )
