"""Exported avatars give the avatar's frames for any batch, and errors leave no files behind."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import export as main

from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.driving.export import avatar_program, export_avatar, to_stablehlo
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar
from th_jax.training.finetune import avatar_from_embedding
from th_jax.types import NetworkState

NETWORKS = Networks(image_size=16, base_width=4)


def save_fresh(path: Path, networks: Networks) -> Path:
    """A random avatar of untrained networks."""
    embedding = jax.random.normal(jax.random.key(1), (networks.plan.embedding,))
    avatar = avatar_from_embedding(networks, networks.init(jax.random.key(0)), embedding)
    save_avatar(path, avatar, networks=networks, provenance=Provenance(kind=Kind.GENERATED))
    return path


@pytest.fixture(scope="module")
def avatar_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fresh(tmp_path_factory.mktemp("avatar") / "ada.safetensors", NETWORKS)


@pytest.fixture(scope="module")
def loaded(avatar_file: Path) -> LoadedAvatar:
    return load_avatar(avatar_file)


def points(count: int, *, of: int = 68) -> np.ndarray:
    return np.random.default_rng(count).uniform(0.2, 0.8, (count, of, 2)).astype(np.float32)


def generated(loaded: LoadedAvatar, landmark_images: jax.Array) -> np.ndarray:
    """Rendered by the avatar's networks, with spectral norm."""
    avatar = loaded.avatar
    adain = jnp.broadcast_to(avatar.adain[None], (len(landmark_images), avatar.adain.shape[0]))
    state = NetworkState(avatar.generator_params, avatar.spectral_stats)
    return np.asarray(loaded.networks.generate(state, landmark_images, adain))


def test_the_stablehlo_artefact_is_the_avatar(loaded: LoadedAvatar, avatar_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "ada.stablehlo"
    assert main(["--avatar", str(avatar_file), "--out", str(out)]) == 0
    program = jax.export.deserialize(bytearray(out.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 3):
        landmarks = jnp.asarray(points(count))
        want = generated(loaded, NETWORKS.landmark_image(landmarks))
        np.testing.assert_allclose(program.call(landmarks), want, atol=1e-4)
        assert want.std() > 0.1
    record, unchanged = read_sidecar(out)
    assert (unchanged, record.avatar) == (True, loaded.digest)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ada.stablehlo", "ada.stablehlo.provenance.json"]


def test_the_artefact_of_landmark_images(loaded: LoadedAvatar) -> None:
    program = jax.export.deserialize(bytearray(to_stablehlo(loaded, takes="images")))
    images = NETWORKS.landmark_image(jnp.asarray(points(2)))
    np.testing.assert_allclose(program.call(images), generated(loaded, images), atol=1e-4)


@pytest.mark.slow
def test_the_exported_function_takes_pupils(loaded: LoadedAvatar) -> None:
    landmarks = jnp.asarray(points(2, of=70))
    want = generated(loaded, NETWORKS.landmark_image(landmarks))
    np.testing.assert_allclose(avatar_program(loaded)(landmarks), want, atol=1e-4)


def test_the_onnx_model_is_the_avatar(tmp_path: Path) -> None:
    """A size with attention, and with convolutions that a CPU computes in another form."""
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    loaded = load_avatar(save_fresh(tmp_path / "ada.safetensors", Networks(image_size=64, base_width=32)))
    out = export_avatar(loaded, tmp_path / "ada.onnx", batch=2)
    session = onnxruntime.InferenceSession(out)
    images = loaded.networks.landmark_image(jnp.asarray(points(2)))
    (frames,) = session.run(["frames"], {"landmarks": np.asarray(images)})
    np.testing.assert_allclose(frames, generated(loaded, images), atol=1e-4)
    assert read_sidecar(out)[1]


def test_convolutions_that_differ_by_platform_are_exported(tmp_path: Path) -> None:
    loaded = load_avatar(save_fresh(tmp_path / "ada.safetensors", Networks(image_size=16, base_width=32)))
    program = jax.export.deserialize(bytearray(to_stablehlo(loaded)))
    landmarks = jnp.asarray(points(2))
    want = generated(loaded, loaded.networks.landmark_image(landmarks))
    np.testing.assert_allclose(program.call(landmarks), want, atol=1e-4)


def test_refusals_leave_nothing_behind(
    avatar_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    for name, options, message in (
        ("a.txt", [], "must end in .stablehlo or .onnx"),
        ("no/a.onnx", [], "no does not exist: create it first"),
        ("a.onnx", ["--takes", "points"], "an ONNX model takes landmark images"),
        ("a.onnx", ["--batch", "0"], "batch must be at least 1 frame, got 0"),
        ("a.stablehlo", ["--batch", "2"], "batch is only for ONNX"),
        ("a.onnx", [], "exporting ONNX requires the extra and a converter: pip install 'th_jax[onnx]'"),
    ):
        assert main(["--avatar", str(avatar_file), "--out", str(tmp_path / name), *options]) == 1
        assert message in capsys.readouterr().err
    assert main(["--avatar", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "a.onnx")]) == 1
    assert "there is no avatar at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
