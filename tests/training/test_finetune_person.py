"""A person from shots to avatar: steps, resizing, stopping, the meta weights untouched."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import losses, networks, optimizers, perceptual, tiny_batch  # noqa: F401 - a fixture

from th_jax.training import finetune_people as finetune_person
from th_jax.training.finetune import FinetuneState, feed_forward
from th_jax.training.finetune_people import default_losses, fit_shots, make_finetune
from th_jax.types import NetworkState, Shots


def noise(count: int, *, size: int = 16) -> Shots:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Shots(frames, rng.uniform(0.2, 0.8, (count, 68, 2)).astype(np.float32), np.ones(count, np.float32))


def test_a_person_from_start_to_end(perceptual: Any) -> None:  # noqa: F811
    weights = networks().init(jax.random.key(0))
    before = jax.tree.map(np.array, weights)
    looks: list[int] = []
    finetune = make_finetune(
        networks(),
        epochs=5,
        loss_weights=losses(),
        optimizers=optimizers("adam"),
        chunk_steps=3,
        watch=lambda state, metrics: looks.append(len(metrics["loss/generator"])) or False,
    )
    avatar, metrics = finetune(weights, perceptual, noise(3))
    assert looks == [3, 2]
    assert all(values.shape == (5,) and np.isfinite(values).all() for values in metrics.values())
    before_training = feed_forward(networks(), weights, fit_shots(networks(), noise(3)))
    assert np.abs(np.asarray(avatar.adain) - np.asarray(before_training.adain)).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, before, weights)
    stopped = make_finetune(
        networks(),
        epochs=5,
        loss_weights=losses(),
        optimizers=optimizers("adam"),
        chunk_steps=3,
        watch=lambda state, metrics: True,
    )
    _, metrics = stopped(weights, perceptual, noise(3))
    assert metrics["loss/generator"].shape == (3,)


def test_the_start_is_compiled_once_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of a thousand people does not wait for the compiler a thousand times."""
    begun: list[int] = []

    def start(*arguments: Any, **settings: Any) -> Any:
        begun.append(1)
        nothing, network = jnp.zeros(3), NetworkState({}, {})
        return FinetuneState(nothing, nothing, network, nothing, network, {}, {})

    class Chunk:
        def __call__(self, state: Any, frozen: Any, shots: Any, end: Any) -> Any:
            return state, {"loss/generator": jnp.zeros(2)}

    monkeypatch.setattr(finetune_person, "start_finetune", start)
    monkeypatch.setattr(finetune_person, "make_finetune_chunk", lambda *networks, **settings: Chunk())
    finetune = make_finetune(networks(), epochs=2, loss_weights=losses(), chunk_steps=2)
    weights = networks().init(jax.random.key(0))
    for _ in range(3):
        finetune(weights, {}, noise(3))
    assert len(begun) == 1, "traced once"


def test_shots_are_resized_and_padded() -> None:
    shots = fit_shots(networks(), noise(9, size=32))
    assert shots.frames.shape == (32, 16, 16, 3)
    assert shots.mask.tolist() == [1.0] * 9 + [0.0] * 23
    flat = noise(1, size=64)._replace(frames=np.full((1, 64, 64, 3), 77, np.uint8))
    assert (fit_shots(networks(), flat).frames == 77).all()
    same = noise(8)
    np.testing.assert_array_equal(fit_shots(networks(), same).frames, same.frames)


def test_shots_that_fit_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 1 to 32 shots, but 33 real ones of 33 were given"):
        fit_shots(networks(), noise(33))
    with pytest.raises(ValueError, match="but 0 real ones of 2 were given"):
        fit_shots(networks(), noise(2)._replace(mask=np.zeros(2, np.float32)))
    with pytest.raises(ValueError, match="at least 1 shot and 1 epoch"):
        make_finetune(networks(), epochs=0)


def test_losses_follow_the_frozen_networks() -> None:
    assert set(default_losses({"vgg16": {}}).content) == {"vgg16"}
    assert default_losses({"vgg19": {}, "vggface": {}}).content["vgg19"] == 0.15
    with pytest.raises(ValueError, match=r"no published loss weights are for the frozen networks \(none\)"):
        default_losses({})
