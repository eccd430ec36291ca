"""Many people give the avatars that one by one would: rounds, empty places, people who come lazily."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import largest_difference, losses, networks, optimizers, perceptual, tiny_batch  # noqa: F401 - a fixture

from th_jax.training.finetune_many import finetune_many
from th_jax.training.finetune_person import make_finetune
from th_jax.types import Shots

SETTINGS: dict[str, Any] = {"epochs": 3, "chunk_steps": 2}


def shots(seed: int, *, real: int) -> Shots:
    batch = tiny_batch(episodes=8, sources=1, seed=seed)
    return Shots(batch.target_frame, batch.target_landmarks, (np.arange(8) < real).astype(np.float32))


def test_rounds_give_what_one_by_one_gives(perceptual: Any) -> None:  # noqa: F811
    weights = networks().init(jax.random.key(0))
    settings = SETTINGS | {"loss_weights": losses(), "optimizers": optimizers("sgd")}
    came: list[str] = []

    def people() -> Iterator[tuple[str, Shots]]:
        for number in range(3):
            came.append(f"person {number}")
            yield came[-1], shots(number, real=8 - 3 * number)

    done = []
    for person in finetune_many(networks(), weights, perceptual, people(), at_once=2, **settings):
        done.append(person)
        if len(done) == 1:
            assert came == ["person 0", "person 1"], "nobody is read before there is room"
    assert [person.name for person in done] == ["person 0", "person 1", "person 2"]
    alone = make_finetune(networks(), **settings)
    for number in (0, 2):
        avatar, metrics = alone(weights, perceptual, shots(number, real=8 - 3 * number))
        assert largest_difference(done[number].avatar, avatar) < 1e-4
        np.testing.assert_allclose(done[number].metrics["loss/content"], metrics["loss/content"], rtol=1e-4)
        assert done[number].metrics["loss/content"].shape == (3,)


def test_settings_that_fit_no_round_are_refused() -> None:
    people = finetune_many(networks(), networks().init(jax.random.key(0)), {}, [], at_once=3, width=2)
    with pytest.raises(ValueError, match="a multiple of width, but they are 3 and 2"):
        next(people)
