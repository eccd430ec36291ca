"""Meta weights: released and opened again, from a file or a run, and never those of another file or network."""

import functools
import gc
import json
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax import weights as pretrained
from th_jax.models.networks import Networks, group
from th_jax.models.spectral import normalized_kernel, power_iterate
from th_jax.perceptual.frozen import WeightsError
from th_jax.provenance import Kind, pixel_digest
from th_jax.storage.checkpoints import Checkpoints
from th_jax.storage.tensors import checksum, leaves_by_name
from th_jax.types import MetaWeights, NetworkState, Shots
from th_jax.weights import MetaModel, PretrainedError, load_meta, load_pretrained, save_meta

NETWORKS = Networks(image_size=16, base_width=4)
ABOUT = {"name": "tiny", "steps": 7, "data": "noise", "licence": "CC0-1.0", "config": {"seed": 0}}
ROW_IDS = [f"{number:064x}" for number in range(5)]


@functools.cache
def moved_weights() -> MetaWeights:
    """Weights as training leaves them: kernels whose singular values differ, u and v a little behind."""
    rng = np.random.default_rng(0)

    def move(state: NetworkState) -> NetworkState:
        noise = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), state.params)
        return NetworkState(noise, power_iterate(noise, state.spectral_stats))

    return MetaWeights(*map(move, NETWORKS.init(jax.random.key(0))))


@functools.cache
def table() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(5, NETWORKS.plan.embedding)).astype(np.float32)


def save(path: Path, **changes) -> str:
    settings = {"networks": NETWORKS, "weights": moved_weights(), "perceptual": ["vgg16"], "description": ABOUT}
    return save_meta(path, **settings | changes)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    save(tmp_path / "tiny.safetensors", table_rows=table(), row_ids=ROW_IDS)
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder whose state has the names that the training state has."""
    workdir = tmp_path / "a_run"
    weights = moved_weights()
    live = jax.tree.map(lambda x: x + 1, weights.synthesis)
    config = {"networks": {"image_size": 16, "base_width": 4}, "perceptual": ["vgg16"], "seed": 3}
    state = {
        "step": jnp.int32(0),
        "weights": MetaWeights(live, weights.discriminator),
        "averaged": weights.synthesis,
        "table": {"rows": jnp.ones((256, 32))},
    }
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        for step in (10, 20):
            state["weights"].discriminator.params["bias"] = jnp.full_like(weights.discriminator.params["bias"], step)
            checkpoints.save(step, state, description={"config": config})
    return workdir


def leaves_of(weights: MetaWeights) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in leaves_by_name(weights).items()}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_released_weights_round_trip(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "new" / "tiny.safetensors"
    digest = save(path, dtype=dtype, table_rows=table(), row_ids=ROW_IDS)
    meta = load_meta(path)
    assert isinstance(meta, MetaModel)
    assert (meta.networks, meta.digest, meta.row_ids) == (NETWORKS, digest, tuple(ROW_IDS))
    assert {key: meta.description[key] for key in ABOUT} == ABOUT
    assert (meta.description["dtype"], meta.description["perceptual"]) == (dtype, ["vgg16"])
    assert meta.perceptual["vgg16"]["block1_conv1"]["kernel"].shape == (3, 3, 3, 64)
    np.testing.assert_array_equal(meta.table_rows, table().astype(dtype))
    loaded = leaves_of(meta.weights)
    for name, leaf in leaves_of(moved_weights()).items():
        assert loaded[name].dtype == np.float32
        if "/params/" in name:
            np.testing.assert_array_equal(loaded[name], leaf.astype(dtype))
    assert [p.name for p in path.parent.iterdir()] == ["tiny.safetensors"]


def test_each_sigma_fits_its_rounded_kernel(released: Path) -> None:
    """The loaded kernels over their sigmas have the norm 1, as 20 iterations give it; the live vectors are further off."""
    far_off = []
    for live, loaded in zip(moved_weights(), load_meta(released).weights, strict=True):
        paths = [p for p, _ in jax.tree_util.tree_flatten_with_path(loaded.spectral_stats)[0] if p[-1].key == "u"]
        for path in paths:
            find = functools.partial(functools.reduce, lambda tree, key: tree[key.key], path[:-1])
            stats, kernel = find(loaded.spectral_stats), find(loaded.params)["kernel"]
            unit = normalized_kernel(kernel, stats["u"], stats["v"]).reshape(-1, kernel.shape[-1])
            assert np.linalg.norm(unit, 2) == pytest.approx(1, abs=0.02)
            again = power_iterate({"kernel": kernel}, stats)
            assert again["u"] @ stats["u"] == pytest.approx(1, abs=2e-3)
            old = find(live.spectral_stats)
            unit = normalized_kernel(kernel, old["u"], old["v"]).reshape(-1, kernel.shape[-1])
            far_off.append(np.linalg.norm(unit, 2) - 1)
    assert max(far_off) > 0.1


def test_released_weights_generate_what_the_originals_do(released: Path) -> None:
    rng = np.random.default_rng(2)
    drawing = jnp.asarray(rng.uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    adain = jnp.asarray(rng.normal(size=(2, NETWORKS.plan.adain_size)), jnp.float32)
    synthesis = moved_weights().synthesis
    settled = power_iterate(synthesis.params, synthesis.spectral_stats, iterations=20)
    wanted = NETWORKS.generate(group(NetworkState(synthesis.params, settled), "generator"), drawing, adain)
    loaded_frames = NETWORKS.generate(group(load_meta(released).weights.synthesis, "generator"), drawing, adain)
    assert 0 < np.abs(wanted - loaded_frames).max() < 0.02


def test_provenance_names_the_weights(released: Path) -> None:
    meta = load_meta(released)
    shots = Shots(np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 68, 2), np.float32), np.array([1, 0], np.float32))
    record = meta.provenance.of(shots)
    assert (record.kind, record.weights) == (Kind.GENERATED, {"tiny": meta.digest})
    assert record.inputs == (pixel_digest(shots.frames[0]),)


def test_a_run_gives_its_averaged_weights(run: Path) -> None:
    meta = load_meta(run)
    wanted = moved_weights()
    assert meta.networks == NETWORKS
    assert (meta.description["name"], meta.description["steps"], meta.description["config"]["seed"]) == ("a_run", 20, 3)
    settled = power_iterate(wanted.synthesis.params, wanted.synthesis.spectral_stats, iterations=20)
    jax.tree.map(np.testing.assert_array_equal, meta.weights.synthesis, NetworkState(wanted.synthesis.params, settled))
    np.testing.assert_array_equal(meta.weights.discriminator.params["bias"], 20)
    np.testing.assert_array_equal(load_meta(str(run), step=10).weights.discriminator.params["bias"], 10)
    save(run / "released.safetensors", weights=meta.weights, dtype="float32")
    again = leaves_of(load_meta(run / "released.safetensors").weights)
    for name, leaf in leaves_of(meta.weights).items():
        if "/params/" in name:
            np.testing.assert_array_equal(again[name], leaf)


def test_a_runs_digest_is_that_of_its_weights(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """u and v are computed when it is opened, a little otherwise on each device: the avatars that name it fit on all."""
    here = load_meta(run)
    monkeypatch.setattr(pretrained, "power_iterate", lambda params, stats, **_: jax.tree.map(lambda x: x + 1e-3, stats))
    there = load_meta(run)
    assert here.digest == there.digest != load_meta(run, step=10).digest
    assert not np.array_equal(*(jax.tree.leaves(one.weights.synthesis.spectral_stats)[0] for one in (here, there)))


def test_invalid_run_folders(tmp_path: Path, run: Path) -> None:
    with pytest.raises(PretrainedError, match=r"nowhere is neither .*: there are no checkpoints"):
        load_meta(tmp_path / "nowhere")
    with pytest.raises(PretrainedError, match="no checkpoint of step 15; it has 10, 20"):
        load_meta(run, step=15)
    with Checkpoints(run / "checkpoints") as checkpoints:
        leaves, record = checkpoints.read(["averaged/", "weights/discriminator/"])
        checkpoints.save(30, leaves, description={"config": record["config"] | {"networks": {"image_size": 17}}})
        checkpoints.save(40, leaves, description={"config": {}})
        leaves.popitem()
        checkpoints.save(50, leaves, description={"config": record["config"]})
    with pytest.raises(PretrainedError, match=r"do not fit Networks\(image_size=16, .* but is missing"):
        load_meta(run)
    with pytest.raises(PretrainedError, match="networks and perceptual"):
        load_meta(run, step=40)
    with pytest.raises(PretrainedError, match=r"th_jax .* does not support: .*17"):
        load_meta(run, step=30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves reads unawaited
def test_damaged_run(run: Path) -> None:
    (file, *_) = (path for path in (run / "checkpoints" / "00000020").rglob("d/*") if path.stat().st_size > 10_000)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(PretrainedError, match=r"the checkpoint of step 20 .* is damaged"):
        load_meta(run, step=20)
    assert load_meta(run).description["steps"] == 10, "without a step, the newest whole one"
    gc.collect()


def test_truncated_file(released: Path) -> None:
    content = released.read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        released.write_bytes(content[:length])
        with pytest.raises(PretrainedError, match="truncated"):
            load_meta(released)


def test_any_altered_byte_is_found(released: Path) -> None:
    content = released.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    rng = np.random.default_rng(1)
    for place in [*range(8), *rng.integers(8, 8 + header, 60), *rng.integers(8 + header, len(content), 30)]:
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        released.write_bytes(bytes(altered))
        with pytest.raises(PretrainedError, match=r"not a readable safetensors file|was modified|has the format"):
            load_meta(released)


def rewrite(path: Path, **changes: str) -> None:
    """Change the file's metadata, as another program or version might have written it."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_files_of_other_formats_and_networks(released: Path) -> None:
    meta = load_meta(released)
    for settings, message in (
        ({"image_size": 16, "base_width": 8}, r"do not fit Networks\(image_size=16, base_width=8.* must be \["),
        ({"image_size": 32, "base_width": 4}, r"do not fit Networks\(image_size=32"),
        ({"image_size": 16, "width": 4}, r"networks .* not support: 'width' is not a setting"),
    ):
        text = json.dumps(dict(meta.description) | {"networks": settings})
        rewrite(released, description=text, sha256=checksum(pretrained.FORMAT, text, meta.digest))
        with pytest.raises(PretrainedError, match=message):
            load_meta(released)
    text = json.dumps(dict(meta.description) | {"perceptual": ["vgg19"]})
    rewrite(released, description=text, sha256=checksum(pretrained.FORMAT, text, meta.digest))
    with pytest.raises(WeightsError, match="weights of vgg19 are missing"):
        load_meta(released, perceptual=released.parent)
    assert load_meta(released, only_generate=True).perceptual == {}
    rewrite(released, format="th_jax.meta/2")
    with pytest.raises(PretrainedError, match=r"has the format 'th_jax.meta/2', .* expects 'th_jax.meta/1'"):
        load_meta(released)
    with pytest.raises(PretrainedError, match="only a run folder has steps"):
        load_meta(released, step=3)
    with pytest.raises(PretrainedError, match="no released weights at"):
        load_meta(released.with_name("other.safetensors"))


def test_saving_rejects_what_could_not_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    weights = moved_weights()
    huge = jax.tree.map(lambda x: x * 1e6, weights.synthesis.params)
    broken = MetaWeights(NetworkState(huge, weights.synthesis.spectral_stats), weights.discriminator)
    for changes, message in (
        ({"weights": broken}, r"synthesis/params/embedder/.* is not finite in float16"),
        (
            {"networks": Networks(image_size=16, base_width=8)},
            r"these weights do not fit Networks\(.*base_width=8",
        ),
        ({"description": {"name": "x", "steps": 1}}, "incomplete: data, licence missing"),
        ({"description": ABOUT | {"dtype": "x"}}, "reserved keys in the description: dtype"),
        ({"description": ABOUT | {"config": tmp_path}}, "description must be JSON values"),
        ({"perceptual": ["resnet"]}, "unknown perceptual network 'resnet'; .*vgg16"),
        ({"table_rows": table()}, r"rows of 32 numbers, got rows of \[5, 32\] and 0 IDs"),
        ({"row_ids": ROW_IDS}, "got no rows and 5 IDs"),
        ({"table_rows": table(), "row_ids": ["video"] * 5}, "ID must be the SHA-256"),
    ):
        with pytest.raises(PretrainedError, match=message):
            save(path, **changes)
    with pytest.raises(PretrainedError, match=r"must end in \.safetensors, got .*x\.npz"):
        save(tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_bundled_weights_by_name(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_PRETRAINED", released.parent)
    monkeypatch.setitem(pretrained.RENAMED_WEIGHTS, "small", "tiny")
    assert load_pretrained("small").digest == load_meta("small").digest == load_pretrained("tiny").digest
    assert load_pretrained("tiny").networks == load_meta("tiny").networks == NETWORKS
    with pytest.raises(PretrainedError, match=r"unknown pretrained weights '\.\./tiny'; bundled weights: tiny; th_jax"):
        load_pretrained("../tiny")
    with pytest.raises(PretrainedError, match=r"nope is neither .*; bundled weights: tiny$"):
        load_meta("nope")
    monkeypatch.setattr(pretrained, "_PRETRAINED", released.parent / "none")
    with pytest.raises(PretrainedError, match="bundled weights: none"):
        load_pretrained("tiny")


def test_opening_a_file_loads_neither_orbax_nor_opencv(released: Path) -> None:
    code = f"""
import sys
from th_jax.weights import load_meta
load_meta({str(released)!r})
print([name for name in ("orbax", "cv2", "tensorflow", "optax") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
