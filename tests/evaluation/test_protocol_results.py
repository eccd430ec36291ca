"""From stored scores to numbers: which frames count together, and what the interval covers."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from th_jax.evaluation.bootstrap import bootstrap_difference, bootstrap_mean
from th_jax.evaluation.protocol import results
from th_jax.evaluation.protocol.score_store import Cell

gather = results.gather.__wrapped__  # stand-ins take the place of the run's files and of its people


def test_two_videos_of_a_person_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    people = [SimpleNamespace(name=f"video {n}", identity=f"person {n // 2}") for n in range(6)]
    cells = {
        (group, count, person.name): Cell({method: {"ssim": rng.normal(size=4)} for method in methods}, {})
        for person in people
        for group, count, methods in ((results.REAL, 0, ("real",)), (results.OURS, 1, ("FF", "FT")))
    }
    kept: Any = SimpleNamespace(read=lambda group, count, person: cells[group, count, person.name])
    scores = gather(kept, people, shots=(1,), systems={}, more={}, distances={}, seed=3)
    ours, theirs = (scores.tables[method, 1]["ssim"] for method in ("FT", "FF"))
    groups = np.array([0, 0, 1, 1, 2, 2])
    assert scores.estimates["FT", 1]["ssim"] == bootstrap_mean(ours, groups=groups, seed=3)
    assert scores.estimates["FT", 1]["ssim"].people == 3
    difference = scores.difference(("FT", 1), ("FF", 1), "ssim")
    assert difference == bootstrap_difference(ours, theirs, groups=groups, seed=3)
    assert difference.people == 3
