"""Teaching E identity: targets, the step's loss against its formula, what G is given, and the whole command."""

import re
from pathlib import Path
from typing import Any

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
    with pytest.raises(
        ValueError, match="components must be 1 to 3, the number that the features of 500 people have, got 4"
    ):
        TargetBasis.of(features, components=4)
    flat = np.concatenate([features, np.zeros((500, 2))], axis=1)  # channels that are dead
    with pytest.raises(ValueError, match="components must be 1 to 3"):
        TargetBasis.of(flat, components=5)


def test_the_first_step_has_the_loss_of_the_formula() -> None:
    optimizer = optax.sgd(0.0)
    before = group(WEIGHTS.synthesis, "embedder")
    e, wanted = embed(before), np.repeat(TARGETS, 2, axis=0)
    state = start_teaching(NETWORKS, WEIGHTS, optimizer, embeddings=e, targets=wanted)
    _, metrics = jax.jit(make_teach_step(NETWORKS, optimizer))(state, before, FRAMES, LANDMARKS, TARGETS)
    assert float(metrics["reconstruction"]) < 1e-10
    # Ridge regression as a least-squares problem with additional rows.
    middle = np.concatenate([e - e.mean(0), np.sqrt(30.0) * np.eye(WIDTH)])
    kernel = np.linalg.lstsq(middle, np.concatenate([wanted, np.zeros((WIDTH, 3))]), rcond=None)[0]
    predicted = (e - e.mean(0)) @ kernel + wanted.mean(0)
    cosines = (predicted * wanted).sum(1) / np.sqrt(((predicted**2).sum(1) + 1e-4) * (wanted**2).sum(1))
    np.testing.assert_allclose(float(metrics["cosine"]), cosines.mean(), rtol=1e-3, atol=1e-6)


def test_teaching_raises_the_cosine_and_keeps_the_embeddings_of_before() -> None:
    optimizer = optax.adam(3e-3)
    before = group(WEIGHTS.synthesis, "embedder")
    old, wanted = embed(before), np.repeat(TARGETS, 2, axis=0)
    state = start_teaching(NETWORKS, WEIGHTS, optimizer, embeddings=old, targets=wanted)
    step = jax.jit(make_teach_step(NETWORKS, optimizer), donate_argnums=0)
    first = float(np.mean(predicted_cosine(state, old, wanted)))
    for _ in range(150):
        state, _ = step(state, before, FRAMES, LANDMARKS, TARGETS)
    taught = taught_weights(WEIGHTS, state)
    new = embed(group(taught.synthesis, "embedder"))
    assert float(np.mean(predicted_cosine(state, new, wanted))) > first + 0.2
    psi = NETWORKS.project(group(WEIGHTS.synthesis, "projection"), jnp.asarray(old))
    psi_now = NETWORKS.project(group(taught.synthesis, "projection"), jnp.asarray(new))
    psi_alone = NETWORKS.project(group(WEIGHTS.synthesis, "projection"), jnp.asarray(new))
    error, unfolded = (float(jnp.mean(jnp.abs(each - psi))) for each in (psi_now, psi_alone))
    assert error < 0.7 * unfolded, (error, unfolded)
    generators = (weights.synthesis.params["generator"] for weights in (taught, WEIGHTS))
    jax.tree.map(np.testing.assert_array_equal, *generators)
    np.testing.assert_array_equal(embed(before), old, err_msg="the given weights stay as they are")
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


@pytest.fixture
def face_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face MobileNet of random weights is installed."""
    rng = np.random.default_rng(1)
    layers = {
        name: {
            "kernel": jnp.asarray(rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[:-1])), jnp.float32),
            "bias": jnp.zeros(shape[-1]),
        }
        for name, shape in layer_shapes().items()
    }
    monkeypatch.setattr(teach_run, "load_perceptual", lambda names: {names[0]: layers})
    monkeypatch.setattr(teach_run, "FRAMES_OF_A_TARGET", 2)  # of 192 people each


def write(path: Path, networks: Networks = NETWORKS, weights: Any = WEIGHTS) -> Path:
    about = {"name": "start", "steps": 7, "data": "none", "licence": "CC0-1.0"}
    save_meta(path, networks=networks, weights=weights, perceptual=["vgg16"], description=about)
    return path


def test_the_command_writes_weights_to_go_on_from(
    tmp_path: Path, face_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = write(tmp_path / "start.safetensors"), tmp_path / "taught.safetensors"
    given = ["--meta", str(start), "--data", "bundled", "--steps", "2", "--components", "8", "--out", str(out)]
    assert main(["teach", *given]) == 0, capsys.readouterr().err
    first, second, wrote = capsys.readouterr().out.splitlines()
    assert first.startswith("step 0: held-out cosine ")
    assert re.fullmatch(r"step 2: cosine -?\d\.\d{3}, held-out -?\d\.\d{3}; reconstruction error \d\.\d{4}", second)
    taught, before = (load_meta(path, only_generate=True) for path in (out, start))
    assert wrote == f"{out}  sha256 {taught.digest}"
    assert (taught.description["name"], taught.description["steps"]) == ("start_taught", 7)
    assert taught.description["data"] == "none; E also learned from heads, 192 videos"
    assert taught.description["taught"] == {
        "steps": 2, "learning_rate": 1e-3, "components": 8, "seed": 0, "data": "heads, 192 videos",
        "from": {"name": "start", "digest": before.digest},
    }  # fmt: skip
    kernels = [
        np.asarray(meta.weights.synthesis.params["embedder"]["down_0"]["conv_0"]["kernel"]) for meta in (taught, before)
    ]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--steps": "0"}, "steps must be at least 1 and learning_rate above 0, got 0 and 0.001"),
        ({"--learning-rate": "0"}, "steps must be at least 1 and learning_rate above 0, got 2500 and 0.0"),
        ({"--components": "192"}, "components must be 1 to 191, one less than the people"),
        ({"--out": "taught.bin"}, "must end in .safetensors"),
        ({"--out": "nowhere/taught.safetensors"}, "nowhere"),
        ({"--data": "nowhere"}, "nowhere"),
        ({"--meta": "nowhere"}, "nowhere is neither a file of released weights nor a readable run folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(
    changed: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(teach_run, "load_perceptual", lambda names: pytest.fail("too late"))
    write(tmp_path / "start.safetensors")
    given = {"--meta": "start.safetensors", "--data": "bundled", "--out": "taught.safetensors"} | changed
    assert main(["teach", *(part for pair in given.items() for part in pair)]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_face_network_and_a_projection_with_spectral_norm_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TH_JAX_WEIGHTS", str(tmp_path))
    given = ["--data", "bundled", "--out", str(tmp_path / "a.safetensors")]
    assert main(["teach", "--meta", str(write(tmp_path / "start.safetensors")), *given]) == 1
    assert "th-jax prepare convert-weights face_mobilenet" in capsys.readouterr().err
    networks = Networks(image_size=16, base_width=4)
    normed = write(tmp_path / "normed.safetensors", networks, networks.init(jax.random.key(0)))
    assert main(["teach", "--meta", str(normed), *given]) == 1
    assert "P must have no spectral norm" in capsys.readouterr().err
