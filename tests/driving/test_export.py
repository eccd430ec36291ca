"""Exported avatars give the avatar's frames for any batch, and errors leave no files behind."""

import dataclasses
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from commands import export as main

import th_jax
from th_jax.avatars.examples import write_shots
from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving import int8
from th_jax.driving.export import avatar_program, export_avatar, to_stablehlo
from th_jax.driving.int8 import LEAST_SSIM, frames_of
from th_jax.evaluation.metrics.similarity import ssim
from th_jax.models.networks import Networks
from th_jax.optional import install_command
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


@pytest.mark.parametrize(
    "networks",
    [
        Networks(image_size=16, base_width=4),
        Networks(image_size=64, base_width=8),  # attention in both halves
        Networks(image_size=32, base_width=4, max_width=64),  # an outer block
        Networks(image_size=128, base_width=4, max_width=64, gray=True),
        Networks(image_size=16, base_width=4, spectral_norm=False),
        Networks(image_size=16, base_width=4, compute_dtype="bfloat16"),
    ],
    ids=["smallest", "attention", "outer", "gray", "plain", "bfloat16"],
)
def test_the_onnx_model_is_the_avatar(networks: Networks, tmp_path: Path) -> None:
    """For any batch, or for one; biases and gammas are not zero."""
    loaded = load_avatar(save_fresh(tmp_path / "ada.safetensors", networks))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), loaded.avatar.generator_params)
    loaded = dataclasses.replace(loaded, avatar=loaded.avatar._replace(generator_params=params))
    images = loaded.networks.landmark_image(jnp.asarray(points(3)))
    exact = dataclasses.replace(loaded, networks=dataclasses.replace(networks, compute_dtype="float32"))
    want = generated(exact, images)
    assert want.std() > 0.01
    program = jax.export.deserialize(bytearray(to_stablehlo(loaded, takes="images")))
    np.testing.assert_allclose(program.call(images), want, atol=1e-4)
    out, _ = export_avatar(loaded, tmp_path / "ada.onnx")
    session = onnxruntime.InferenceSession(out)
    for part in (slice(1), slice(3)):
        (frames,) = session.run(["frames"], {"landmarks": np.asarray(images[part])})
        np.testing.assert_allclose(frames, want[part], atol=1e-4)
    assert read_sidecar(out)[1]
    fixed, _ = export_avatar(loaded, tmp_path / "fixed.onnx", batch=3)
    session = onnxruntime.InferenceSession(fixed)
    assert session.get_inputs()[0].shape == [3, networks.image_size, networks.image_size, 3]
    np.testing.assert_allclose(session.run(["frames"], {"landmarks": np.asarray(images)})[0], want, atol=1e-4)


def test_the_int8_model_is_nearly_the_avatar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bundled weights, since those of untrained networks have other ranges."""
    meta = th_jax.load_meta("heads64")
    shots = write_shots("head", tmp_path / "shots")
    th_jax.finetune(meta, shots, train=False).save(tmp_path / "ada.safetensors")
    files = {}
    for name, options in (("float", []), ("int8", ["--int8"])):
        files[name] = tmp_path / f"{name}.onnx"
        assert main(["--avatar", str(tmp_path / "ada.safetensors"), "--out", str(files[name]), *options]) == 0
        assert read_sidecar(files[name])[1]
    told = re.search(r"(\d+) convolutions in int8, (\d+) in float32; SSIM (0\.99\d+)", capsys.readouterr().out)
    assert told
    assert int(told[1]) >= 27
    assert float(told[3]) >= LEAST_SSIM
    # Frames of a person who was not used to measure ranges.
    landmarks = VideoRecords(bundled_heads(), "heldout").read(11).landmarks[:8]
    images = np.asarray(meta.networks.landmark_image(jnp.asarray(landmarks)))
    made = {name: frames_of(path, images) for name, path in files.items()}
    assert made["int8"].shape == (8, 64, 64, 3)
    assert np.mean(ssim(made["float"], made["int8"], data_range=2.0)) >= 0.99
    assert np.abs(made["float"] - made["int8"]).max() > 0
    kinds = {node.op_type for node in onnx.load(files["int8"]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert {node.domain for path in files.values() for node in onnx.load(path).graph.node} <= {"", "ai.onnx"}
    assert files["int8"].stat().st_size < 0.4 * files["float"].stat().st_size
    assert onnxruntime.InferenceSession(files["int8"]).get_inputs()[0].shape == ["batch", 64, 64, 3]


def test_an_int8_model_that_differs_too_much_is_not_written(
    avatar_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8, "LEAST_SSIM", 1.1)
    monkeypatch.setattr(int8, "MOST_FLOAT", 1)
    assert main(["--avatar", str(avatar_file), "--out", str(tmp_path / "a.onnx"), "--int8"]) == 1
    assert re.search(r"differ too much: SSIM 0\.\d+ to the float model's, at least 1.1", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_convolutions_that_differ_by_platform_are_exported(tmp_path: Path) -> None:
    loaded = load_avatar(save_fresh(tmp_path / "ada.safetensors", Networks(image_size=16, base_width=32)))
    program = jax.export.deserialize(bytearray(to_stablehlo(loaded)))
    landmarks = jnp.asarray(points(2))
    want = generated(loaded, loaded.networks.landmark_image(landmarks))
    np.testing.assert_allclose(program.call(landmarks), want, atol=1e-4)


def test_refusals_leave_nothing_behind(
    avatar_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name, options, message in (
        ("a.txt", [], "must end in .stablehlo or .onnx"),
        ("no/a.onnx", [], "no does not exist: create it first"),
        ("a.onnx", ["--takes", "points"], "an ONNX model takes landmark images"),
        ("a.onnx", ["--batch", "0"], "batch must be at least 1 frame, got 0"),
        ("a.stablehlo", ["--batch", "2"], "batch is only for ONNX"),
        ("a.stablehlo", ["--int8"], "int8 is only for ONNX"),
        ("a.onnx", [], f"exporting ONNX requires the module 'onnx': {install_command('onnx')}"),
    ):
        assert main(["--avatar", str(avatar_file), "--out", str(tmp_path / name), *options]) == 1
        assert message in capsys.readouterr().err
    assert main(["--avatar", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "a.onnx")]) == 1
    assert "there is no avatar at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
