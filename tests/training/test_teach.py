"""Teaching E identity: targets, the step's loss against its formula, what G is given, and the whole command."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from th_jax.cli.main import main
from th_jax.models.networks import Networks, group
from th_jax.perceptual.face_features import layer_shapes
from th_jax.training import teach_run
from th_jax.training.teach import (
    TargetBasis,
    make_teach_step,
    predicted_cosine,
    start_teaching,
    taught_weights,
)
from th_jax.weights import load_meta, save_meta

NETWORKS = Networks(image_size=16, base_width=4, pool="mean", projection_spectral_norm=False)
WEIGHTS = NETWORKS.init(jax.random.key(0))
WIDTH = NETWORKS.plan.embedding
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (6, 2, 16, 16, 3), np.uint8)
LANDMARKS = RNG.uniform(0.2, 0.8, (6, 2, 68, 2)).astype(np.float32)
TARGETS = RNG.standard_normal((6, 3)).astype(np.float32)


def embed(embedder: object) -> np.ndarray:
    images = jnp.asarray(FRAMES.reshape(-1, 16, 16, 3) / 127.5 - 1, jnp.float32)
    return np.asarray(
        NETWORKS.embed(embedder, images, NETWORKS.landmark_image(jnp.asarray(LANDMARKS.reshape(-1, 68, 2))))
    )


def test_targets_have_the_roots_of_the_components_deviations() -> None:
    features = RNG.standard_normal((500, 3)) * (9.0, 4.0, 1.0) @ np.linalg.qr(RNG.standard_normal((3, 3)))[0] + 5.0
    targets = TargetBasis.of(features, components=2).targets(features)
    np.testing.assert_allclose(targets.mean(0), 0.0, atol=1e-5)
    covariance = targets.T @ targets / len(targets)
    np.testing.assert_allclose(covariance[0, 1], 0.0, atol=1e-5)
    expected = np.sqrt(np.linalg.eigvalsh(np.cov(features.T, bias=True))[::-1][:2])  # of the features' covariance
    np.testing.assert_allclose(np.diag(covariance), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="500 components need at least 501 people, but there are 500"):
        TargetBasis.of(features, components=500)


def test_the_first_step_has_the_loss_of_the_formula() -> None:
    optimizer = optax.sgd(0.0)
    before = group(WEIGHTS.synthesis, "embedder")
    e, wanted = embed(before), np.repeat(TARGETS, 2, axis=0)
    state = start_teaching(NETWORKS, WEIGHTS, optimizer, embeddings=e, targets=wanted)
    _, metrics = jax.jit(make_teach_step(NETWORKS, before, optimizer))(state, FRAMES, LANDMARKS, TARGETS)
    assert float(metrics["before"]) < 1e-10
    # Ridge regression as a least-squares problem with additional rows.
    middle = np.concatenate([e - e.mean(0), np.sqrt(30.0) * np.eye(WIDTH)])
    kernel = np.linalg.lstsq(middle, np.concatenate([wanted, np.zeros((WIDTH, 3))]), rcond=None)[0]
    predicted = (e - e.mean(0)) @ kernel
    cosines = (predicted * wanted).sum(1) / np.sqrt(((predicted**2).sum(1) + 1e-4) * (wanted**2).sum(1))
    np.testing.assert_allclose(float(metrics["cosine"]), cosines.mean(), rtol=1e-3, atol=1e-6)


def test_teaching_raises_the_cosine_and_keeps_the_embeddings_of_before() -> None:
    optimizer = optax.adam(3e-3)
    before = group(WEIGHTS.synthesis, "embedder")
    old, wanted = embed(before), np.repeat(TARGETS, 2, axis=0)
    state = start_teaching(NETWORKS, WEIGHTS, optimizer, embeddings=old, targets=wanted)
    step = jax.jit(make_teach_step(NETWORKS, before, optimizer))
    first = float(np.mean(predicted_cosine(state, old, wanted)))
    for _ in range(150):
        state, _ = step(state, FRAMES, LANDMARKS, TARGETS)
    taught = taught_weights(WEIGHTS, state)
    new = embed(group(taught.synthesis, "embedder"))
    assert float(np.mean(predicted_cosine(state, new, wanted))) > first + 0.2
    psi = NETWORKS.project(group(WEIGHTS.synthesis, "projection"), jnp.asarray(old))
    psi_now = NETWORKS.project(group(taught.synthesis, "projection"), jnp.asarray(new))
    psi_alone = NETWORKS.project(group(WEIGHTS.synthesis, "projection"), jnp.asarray(new))
    error, unfolded = (float(jnp.mean(jnp.abs(each - psi))) for each in (psi_now, psi_alone))
    assert error < 0.7 * unfolded, (error, unfolded)
    for name in ("generator",):
        jax.tree.map(np.testing.assert_array_equal, taught.synthesis.params[name], WEIGHTS.synthesis.params[name])
    assert taught.discriminator is WEIGHTS.discriminator


def test_before_any_step_the_weights_are_the_same() -> None:
    optimizer = optax.sgd(0.0)
    state = start_teaching(NETWORKS, WEIGHTS, optimizer, embeddings=np.eye(WIDTH), targets=np.ones((WIDTH, 3)))
    same = taught_weights(WEIGHTS, state)
    jax.tree.map(np.testing.assert_array_equal, same.synthesis.params, WEIGHTS.synthesis.params)


def test_spectral_norm_of_the_projection_is_refused() -> None:
    networks = Networks(image_size=16, base_width=4)
    with pytest.raises(ValueError, match="P must have no spectral norm"):
        start_teaching(
            networks, networks.init(jax.random.key(0)), optax.sgd(0.1), embeddings=np.eye(WIDTH), targets=np.eye(WIDTH)
        )


def test_the_command_writes_weights_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    face = {
        name: {
            "kernel": jnp.asarray(rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32),
            "bias": jnp.zeros(
                shape[-1] * (shape[2] if "_dw" not in name else 1) // (shape[2] if "_dw" not in name else 1)
            ),
        }
        for name, shape in layer_shapes().items()
    }
    monkeypatch.setattr(teach_run, "load_perceptual", lambda names: {names[0]: face})
    start, out = tmp_path / "start.safetensors", tmp_path / "taught.safetensors"
    about = {"name": "start", "steps": 7, "data": "none", "licence": "CC0-1.0"}
    save_meta(start, networks=NETWORKS, weights=WEIGHTS, perceptual=["vgg16"], description=about)
    given = ["--meta", str(start), "--data", "bundled", "--steps", "2", "--components", "8", "--out", str(out)]
    assert main(["teach", *given]) == 0
    said = capsys.readouterr().out
    assert said.startswith("step 2: cosine ")
    assert f"{out}  sha256 " in said
    taught = load_meta(out, only_generate=True)
    assert (taught.description["name"], taught.description["steps"]) == ("start_taught", 7)
    assert taught.description["taught"] == {
        "steps": 2, "learning_rate": 1e-3, "components": 8, "seed": 0,
    }  # fmt: skip
    assert main(["teach", *given[:-1], str(tmp_path / "again.safetensors"), "--steps", "0"]) == 1
    assert "steps must be at least 1 and learning_rate above 0, got 0 and 0.001" in capsys.readouterr().err
    assert main(["teach", *given[:-1], str(tmp_path / "again.safetensors"), "--components", "192"]) == 1
    assert "components must be 1 to 191, one less than the people" in capsys.readouterr().err
    kernels = [
        np.asarray(meta.weights.synthesis.params["embedder"]["down_0"]["conv_0"]["kernel"])
        for meta in (taught, load_meta(start, only_generate=True))
    ]
    assert not np.array_equal(*kernels)


def test_what_cannot_be_taught_is_said_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = Networks(image_size=16, base_width=4)
    start = tmp_path / "start.safetensors"
    about = {"name": "start", "steps": 7, "data": "none", "licence": "CC0-1.0"}
    weights = networks.init(jax.random.key(0))
    save_meta(start, networks=networks, weights=weights, perceptual=["vgg16"], description=about)
    assert (
        main(
            ["teach", "--meta", str(start), "--data", str(tmp_path / "none"), "--out", str(tmp_path / "a.safetensors")]
        )
        == 1
    )
    assert "P must have no spectral norm" in capsys.readouterr().err
