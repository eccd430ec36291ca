"""Many people give the avatars that one by one would: rounds, empty places, people who come lazily, several devices."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import (  # noqa: F401 - a fixture
    equal_bits,
    largest_difference,
    losses,
    networks,
    optimizers,
    perceptual,
    tiny_batch,
)

from th_jax.training import finetune_people as many
from th_jax.training.finetune import FinetuneState
from th_jax.training.finetune_people import finetune_many, make_finetune
from th_jax.types import NetworkState, Shots

SETTINGS: dict[str, Any] = {
    "epochs": 3, "chunk_steps": 2, "loss_weights": losses(), "optimizers": optimizers("sgd")
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def shots(seed: int, *, real: int = 8, points: int = 68) -> Shots:
    batch = tiny_batch(episodes=8, sources=1, seed=seed)
    landmarks = np.resize(batch.target_landmarks, (8, points, 2))
    return Shots(batch.target_frame, landmarks, (np.arange(8) < real).astype(np.float32))


@pytest.fixture(scope="module")
def alone(perceptual: Any) -> dict[int, Any]:  # noqa: F811
    """Avatar and metrics of the first and the last of three people, one by one."""
    finetune = make_finetune(networks(), **SETTINGS)
    weights = networks().init(jax.random.key(0))
    return {number: finetune(weights, perceptual, shots(number, real=8 - 3 * number)) for number in (0, 2)}


@pytest.mark.parametrize("width", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_rounds_give_what_one_by_one_gives(perceptual: Any, alone: dict[int, Any], width: int) -> None:  # noqa: F811
    """Two places in a round: of one device, or of two."""
    weights = networks().init(jax.random.key(0))
    came: list[str] = []

    def people() -> Iterator[tuple[str, Shots]]:
        for number in range(3):
            came.append(f"person {number}")
            yield came[-1], shots(number, real=8 - 3 * number)

    at_once = max(width, 2 // jax.local_device_count())
    places = at_once * jax.local_device_count()
    done, seen = [], {}

    def observe(name: str, avatar: Any, metrics: Any) -> bool:
        seen[name] = jax.device_get(avatar)
        assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(avatar))
        return False

    rounds = {"at_once": at_once, "vmap_width": width, "observe": observe, **SETTINGS}
    for person in finetune_many(networks(), weights, perceptual, people(), **rounds):
        done.append(person)
        if len(done) == 1:
            assert len(came) == min(3, places), "nobody is read before there is room"
    assert [person.name for person in done] == ["person 0", "person 1", "person 2"]
    assert all(equal_bits(seen[person.name], person.avatar) for person in done), "who looks last sees what comes out"
    for number, (avatar, metrics) in alone.items():
        assert largest_difference(done[number].avatar, avatar) < 1e-4
        np.testing.assert_allclose(done[number].metrics["loss/content"], metrics["loss/content"], rtol=1e-4)
        assert done[number].metrics["loss/content"].shape == (3,)


@pytest.mark.slow
def test_rounds_on_two_devices() -> None:
    """The test above, by another Python that has two."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", "-k", "one_by_one", __file__]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        command,
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Rounds whose programs do nothing; what meshes were made of."""
    devices: list[Any] = []
    original = many.make_mesh

    def start(weights: Any, shots: Shots, key: Any) -> FinetuneState:
        nothing = jnp.zeros(len(shots.mask))
        network = NetworkState({}, {})
        return FinetuneState(nothing, nothing, network, nothing, network, {}, {})

    def chunk(state: Any, frozen: Any, shots: Shots, ends: Any) -> Any:
        return state, {"loss/generator": jnp.zeros((len(shots.mask), 2))}

    monkeypatch.setattr(many, "_programs", lambda *_, **__: (start, chunk))
    monkeypatch.setattr(many, "make_mesh", lambda **chosen: devices.append(chosen.get("devices")) or original(**chosen))
    return devices


def test_people_with_and_without_pupils_come_to_an_end(no_training: list[Any]) -> None:
    """70 landmarks cannot be stacked on 68: each has rounds of its own."""
    people = [(f"{name} {points}", shots(0, points=points)) for name in "abc" for points in (68, 70)]
    done = finetune_many(networks(), networks().init(jax.random.key(0)), {}, people, at_once=2, **SETTINGS)
    assert [person.name for person in done] == ["a 68", "b 68", "a 70", "b 70", "c 68", "c 70"]


def test_a_host_fine_tunes_on_its_own_devices(no_training: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: [own])
    own = jax.devices()[0]
    list(finetune_many(networks(), networks().init(jax.random.key(0)), {}, [("a", shots(0))], **SETTINGS))
    assert no_training == [[own]]


def test_settings_that_fit_no_round_are_refused() -> None:
    people = finetune_many(networks(), networks().init(jax.random.key(0)), {}, [], at_once=3, vmap_width=2)
    with pytest.raises(ValueError, match="a multiple of vmap_width, but they are 3 and 2"):
        next(people)
