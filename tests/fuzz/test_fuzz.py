"""Parsers of this project's own meet inputs that are nearly valid: some in every run, ten thousand each with `make fuzz`."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import json_targets, mark_targets, record_targets, tensor_targets
from tests.fuzz.targets import Target

TARGETS = {**json_targets.TARGETS, **record_targets.TARGETS, **tensor_targets.TARGETS, **mark_targets.TARGETS}
FEW, MANY = 50, 10_000
BATCH = 250
"""Hypothesis remembers every input of a run, which thousands of them would make slow and large."""


def fuzz(target: Target, folder: Path, inputs: int) -> None:
    """Try so many inputs; the few are the same in every run."""
    tried = 0

    @settings(
        max_examples=min(inputs, BATCH),
        deadline=None,
        database=None,
        derandomize=inputs == FEW,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(target.inputs)
    def try_input(content: object) -> None:
        nonlocal tried
        tried += 1
        target.try_input(folder, content)

    while tried < inputs:
        try_input()


@pytest.mark.parametrize("name", TARGETS)
def test_some_inputs(name: str, tmp_path: Path) -> None:
    fuzz(TARGETS[name], tmp_path, FEW)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs(name: str, tmp_path: Path) -> None:
    fuzz(TARGETS[name], tmp_path, MANY)
