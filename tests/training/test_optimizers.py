"""Rates by update, the rule for large batches, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.training.optimizers import AdamSettings, Optimizers


def test_the_papers_settings_are_the_defaults() -> None:
    optimizers = Optimizers()
    assert (optimizers.synthesis.learning_rate, optimizers.discriminator.learning_rate) == (5e-5, 2e-4)
    for adam in (optimizers.synthesis, optimizers.discriminator):
        assert (adam.beta1, adam.beta2, adam.eps) == (0.0, 0.999, 1e-5)
    assert optimizers.averaging == 0.999


def test_the_rate_warms_up_and_halves() -> None:
    adam = AdamSettings(1e-3, warmup=4, halve_at=(10, 20))
    rates = [float(adam.rate(jnp.int32(n))) for n in (0, 1, 3, 9, 10, 19, 20)]
    np.testing.assert_allclose(rates, [2.5e-4, 5e-4, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4], rtol=1e-6)


def test_averaging_starts_with_a_short_memory() -> None:
    decays = [float(Optimizers().averaging_decay(jnp.int32(n))) for n in (0, 10, 10**6)]
    np.testing.assert_allclose(decays, [0.1, 0.55, 0.999], rtol=1e-6)


def test_batches_up_to_eight_change_nothing() -> None:
    for rule in ("none", "square_root", "linear"):
        assert Optimizers().for_batch(8, rule=rule) == Optimizers()
        assert Optimizers().for_batch(1, rule=rule) == Optimizers()
    assert Optimizers().for_batch(512, rule="none") == Optimizers()


def test_larger_batches_keep_the_span_in_episodes() -> None:
    root = Optimizers().for_batch(32, rule="square_root")
    assert root.synthesis.learning_rate == pytest.approx(1e-4)
    assert root.discriminator.learning_rate == pytest.approx(4e-4)
    assert root.averaging == pytest.approx(0.999**4)
    assert root.synthesis.beta2 == pytest.approx(0.999**4)
    linear = Optimizers().for_batch(32, rule="linear")
    assert linear.synthesis.learning_rate == pytest.approx(2e-4)


def test_from_settings_names_the_mistake() -> None:
    with pytest.raises(ValueError, match="learning_rte"):
        AdamSettings.from_settings({"learning_rte": 1e-3})
    with pytest.raises(ValueError, match="avaraging"):
        Optimizers.from_settings({"avaraging": 0.9})
    built = Optimizers.from_settings({"synthesis": {"learning_rate": 1e-3, "halve_at": [5]}, "averaging": 0.9})
    assert built == Optimizers(AdamSettings(1e-3, halve_at=(5,)), averaging=0.9)


def test_rectified_adam_is_that_of_its_paper() -> None:
    """Liu et al. (2020), algorithm 2: plain momentum while the variance is intractable, then a rectified rate."""
    rate, beta1, beta2, eps = 0.1, 0.5, 0.9, 1e-5
    optimizer = AdamSettings(rate, beta1, beta2, eps, kind="radam").optimizer()
    gradients = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    parameter, state = jnp.zeros(3), optimizer.init(jnp.zeros(3))
    expected, first, second, limit = np.zeros(3), np.zeros(3), np.zeros(3), 2 / (1 - beta2) - 1
    rectified = []
    for number, gradient in enumerate(gradients, 1):
        changes, state = optimizer.update(jnp.asarray(gradient), state, parameter)
        parameter += changes
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.astype(np.float64) ** 2
        length = limit - 2 * number * beta2**number / (1 - beta2**number)
        mean = first / (1 - beta1**number)
        rectified.append(length >= 5)
        if rectified[-1]:
            numerator = (length - 4) * (length - 2) * limit
            mean *= np.sqrt(numerator / ((limit - 4) * (limit - 2) * length))
            mean /= np.sqrt(second / (1 - beta2**number)) + eps
        expected -= rate * mean
        np.testing.assert_allclose(parameter, expected, rtol=1e-4, atol=1e-6)
    assert rectified[0] is False
    assert rectified[-1] is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"learning_rate": 1.0, "beta2": 1.0}, "must be in"),
        ({"learning_rate": 1.0, "kind": "lion"}, 'kind must be "adam", "radam" or "sgd"'),
        ({"learning_rate": 1.0, "halve_at": (5, 3)}, "halve_at must rise"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamSettings(**settings)


def test_impossible_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match="the discriminator's beta1 must be 0"):
        Optimizers(discriminator=AdamSettings(1e-3, beta1=0.5))
    with pytest.raises(ValueError, match="the discriminator's kind must be"):
        Optimizers(discriminator=AdamSettings(1e-3, kind="radam"))
    with pytest.raises(ValueError, match="averaging must be in"):
        Optimizers(averaging=1.0)
    with pytest.raises(ValueError, match="the batch rule must be one of"):
        Optimizers().for_batch(8, rule="cube")
    with pytest.raises(ValueError, match="at least 1 episode"):
        Optimizers().for_batch(0, rule="none")


def test_the_embedding_rate_scales_the_changes_of_e_and_p_alone() -> None:
    changes = {name: {"kernel": jnp.full(3, 0.5)} for name in ("embedder", "projection", "generator")}
    assert Optimizers().synthesis_changes(changes) is changes
    optimizers = Optimizers(embedding_rate=8.0)
    scaled = {name: part["kernel"].tolist() for name, part in optimizers.synthesis_changes(changes).items()}
    assert scaled == {"embedder": [4.0] * 3, "projection": [4.0] * 3, "generator": [0.5] * 3}
    assert optimizers.for_batch(32, rule="square_root").embedding_rate == 8.0
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="embedding_rate must be finite and above 0"):
            Optimizers(embedding_rate=wrong)
