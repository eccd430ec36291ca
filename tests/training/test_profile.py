"""Profiles: which steps are traced, and that the trace of a real step is in the run's folder."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from th_jax.training.optimizers import AdversarySchedule
from th_jax.training.profile import StepProfiler, steps_to_profile
from th_jax.training.run_log import RunLog

PAPER = AdversarySchedule()
STAGES = AdversarySchedule(content_steps=2, discriminator_steps=1)


@pytest.mark.parametrize(
    ("schedule", "start", "total", "count", "traced"),
    [
        (PAPER, 0, 9, 2, range(1, 3)),
        (PAPER, 7, 10, 2, range(8, 10)),
        (STAGES, 0, 9, 1, range(1, 2)),  # within the first stage
        (STAGES, 0, 9, 2, range(4, 6)),  # only the last stage is long enough
        (STAGES, 1, 9, 1, range(4, 5)),
    ],
)
def test_traced_steps_run_a_program_that_was_compiled(
    schedule: AdversarySchedule, start: int, total: int, count: int, traced: range
) -> None:
    assert steps_to_profile(schedule, start_step=start, total_steps=total, count=count) == traced


@pytest.mark.parametrize(
    ("schedule", "start", "total", "count"), [(PAPER, 0, 2, 2), (STAGES, 0, 4, 2), (PAPER, 5, 5, 1)]
)
def test_too_few_steps_for_a_profile(schedule: AdversarySchedule, start: int, total: int, count: int) -> None:
    with pytest.raises(ValueError, match="lower --profile-steps"):
        steps_to_profile(schedule, start_step=start, total_steps=total, count=count)


def traces(workdir: Path) -> list[Path]:
    return [path for path in (workdir / "profile").rglob("*.xplane.pb") if path.stat().st_size]


def test_the_trace_is_written_after_its_last_step_or_when_the_run_stops_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    double = jax.jit(lambda x: 2 * x)
    with RunLog(tmp_path, total_steps=9, start_step=0, tensorboard=False, progress=False) as log:
        with StepProfiler(log, PAPER, start_step=0, total_steps=9, count=2) as profiler:
            for step in range(3):
                assert not traces(tmp_path)
                profiler.before(step)
                profiler.after(step, double(jnp.ones(3)))
            assert len(traces(tmp_path)) == 1
        assert f"profile of the steps 1 to 2: {tmp_path}/profile" in capsys.readouterr().err
        with StepProfiler(log, PAPER, start_step=3, total_steps=9, count=2) as profiler:
            profiler.before(4)
        assert f"{tmp_path}/profile" in capsys.readouterr().err
        with StepProfiler(log, PAPER, start_step=0, total_steps=1, count=0) as profiler:
            profiler.before(0)
            profiler.after(0, {})
        assert capsys.readouterr().err == ""


def test_other_processes_trace_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path, total_steps=9, start_step=0, process_index=1) as log:
        assert not StepProfiler(log, PAPER, start_step=0, total_steps=9, count=2).steps
