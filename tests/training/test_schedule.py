"""Who plays when, and how strong the adversary is."""

import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.training.optimizers import AdversarySchedule


def test_the_papers_schedule_has_both_players_from_the_first_step() -> None:
    schedule = AdversarySchedule()
    assert schedule.players(0) == schedule.players(10**6) == ("synthesis", "discriminator")
    assert float(schedule.adversary(jnp.int32(0))) == 1.0
    assert not schedule.resets_table_at(0)


def test_stages_follow_each_other() -> None:
    schedule = AdversarySchedule(content_steps=10, discriminator_steps=5, ramp_steps=4, weight=0.5)
    stages = [schedule.players(step) for step in (0, 9, 10, 14, 15)]
    assert stages == [("synthesis",)] * 2 + [("discriminator",)] * 2 + [("synthesis", "discriminator")]
    weights = [float(schedule.adversary(jnp.int32(step))) for step in (0, 14, 15, 16, 18, 100)]
    np.testing.assert_allclose(weights, [0.0, 0.0, 0.125, 0.25, 0.5, 0.5])
    assert [step for step in range(20) if schedule.resets_table_at(step)] == [10]


def test_the_weight_falls_after_the_ramp() -> None:
    schedule = AdversarySchedule(discriminator_steps=2, ramp_steps=4, weight=4.0, fall_steps=3, final_weight=1.0)
    weights = [float(schedule.adversary(jnp.int32(step))) for step in (1, 2, 5, 6, 7, 8, 100)]
    np.testing.assert_allclose(weights, [0.0, 1.0, 4.0, 3.0, 2.0, 1.0, 1.0])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="ramp_steps must be at least 0, but is -1"):
        AdversarySchedule(ramp_steps=-1)
    with pytest.raises(ValueError, match="rampsteps"):
        AdversarySchedule.from_settings({"rampsteps": 3})
