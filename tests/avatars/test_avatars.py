"""Avatar files: bit-exact round trips, compact kinds bound to their meta weights, and detection of modified files."""

import dataclasses
import functools
import json
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import compress as main

from th_jax import weights as pretrained
from th_jax.avatars.compact import frame_difference, save_compact
from th_jax.avatars.file import FORMAT, AvatarError, LoadedAvatar, load_avatar, save_avatar
from th_jax.avatars.quantization import decode_difference, encode_difference
from th_jax.models.networks import Networks
from th_jax.models.spectral import power_iterate
from th_jax.provenance import Kind, Provenance
from th_jax.storage.tensors import checksum
from th_jax.training.finetune import avatar_from_embedding
from th_jax.types import Avatar
from th_jax.weights import MetaModel, load_meta, save_meta

NETWORKS = Networks(image_size=16, base_width=4)
ABOUT = {"name": "tiny", "steps": 7, "data": "noise", "licence": "CC0-1.0"}
SHOT, CONSENT = "a" * 64, "c" * 64
LANDMARKS = np.random.default_rng(3).uniform(0.2, 0.8, (2, 70, 2)).astype(np.float32)


def save_tiny(path: Path, *, seed: int = 0) -> MetaModel:
    weights = NETWORKS.init(jax.random.key(seed))
    save_meta(path, networks=NETWORKS, weights=weights, perceptual=[], description=ABOUT)
    return load_meta(path)


@functools.cache
def meta() -> MetaModel:
    """Released weights in memory."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return save_tiny(Path(folder) / "tiny.safetensors")


@functools.cache
def feed_forward_avatar() -> Avatar:
    embedding = jax.random.normal(jax.random.key(5), (NETWORKS.plan.embedding,))
    return avatar_from_embedding(NETWORKS, meta().weights, embedding)


@functools.cache
def tuned_avatar() -> Avatar:
    """A fine-tuned avatar: slightly changed parameters, with u and v not updated."""
    rng = np.random.default_rng(0)
    start = feed_forward_avatar()
    params = jax.tree.map(lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32), start.generator_params)
    return Avatar(params, start.adain + 0.01, power_iterate(params, start.spectral_stats))


def record() -> Provenance:
    return dataclasses.replace(meta().provenance, inputs=(SHOT,), consent=CONSENT, notes="at noon")


def save(path: Path, avatar: Avatar, **changes) -> str:
    settings = {"networks": NETWORKS, "provenance": record(), "meta": meta(), "landmarks": LANDMARKS}
    return save_avatar(path, avatar, **settings | changes)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(tmp_path / "ada.safetensors", tuned_avatar())
    return tmp_path / "ada.safetensors"


def assert_equal_bits(one: Avatar, other: Avatar) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def test_a_full_avatar_round_trips_bit_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ada.safetensors"
    digest = save(path, tuned_avatar(), notes={"finetune": {"steps": 40}})
    loaded = load_avatar(str(path))
    assert isinstance(loaded, LoadedAvatar)
    assert (loaded.networks, loaded.digest, loaded.kind) == (NETWORKS, digest, "full")
    assert loaded.notes == {"finetune": {"steps": 40}}
    assert loaded.description["meta"] == {"name": "tiny", "digest": meta().digest}
    assert_equal_bits(loaded.avatar, tuned_avatar())
    np.testing.assert_array_equal(loaded.landmarks, LANDMARKS)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.avatar)} == {jnp.dtype("float32")}
    assert [p.name for p in path.parent.iterdir()] == ["ada.safetensors"]


def test_provenance_of_generated_frames(saved: Path) -> None:
    loaded = load_avatar(saved)
    kept = Provenance.from_dict(loaded.description["provenance"])
    assert kept == dataclasses.replace(record(), created=kept.created)
    out = loaded.provenance
    assert (out.kind, out.avatar, out.inputs, out.consent) == (Kind.GENERATED, loaded.digest, (SHOT,), CONSENT)
    assert (out.weights, out.notes) == ({"tiny": meta().digest}, "at noon")


def test_an_avatar_without_meta_weights_or_landmarks_and_with_folded_networks(tmp_path: Path) -> None:
    networks, weights = NETWORKS.folded(meta().weights)
    avatar = avatar_from_embedding(networks, weights, jnp.ones(NETWORKS.plan.embedding))
    save(tmp_path / "a.safetensors", avatar, networks=networks, meta=None, landmarks=None)
    loaded = load_avatar(tmp_path / "a.safetensors")
    assert (loaded.networks.spectral_norm, loaded.landmarks, loaded.description["meta"]) == (False, None, None)
    assert_equal_bits(loaded.avatar, avatar)


def test_a_feed_forward_avatar_is_its_adain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ada.safetensors"
    save(path, feed_forward_avatar(), kind="feed_forward")
    save_tiny(tmp_path / "tiny.safetensors")
    for given in (meta(), tmp_path / "tiny.safetensors", str(tmp_path / "tiny.safetensors")):
        loaded = load_avatar(path, meta=given)
        assert loaded.kind == "feed_forward"
        assert_equal_bits(loaded.avatar, feed_forward_avatar())
    monkeypatch.setattr(pretrained, "_PRETRAINED", tmp_path)
    assert_equal_bits(load_avatar(path).avatar, feed_forward_avatar())
    (tmp_path / "tiny.safetensors").rename(tmp_path / "tiny64.safetensors")  # as when better weights get the name
    save_tiny(tmp_path / "tiny.safetensors", seed=1)
    assert_equal_bits(load_avatar(path).avatar, feed_forward_avatar())


def test_a_feed_forward_avatar_of_paper_size_is_small(tmp_path: Path) -> None:
    """Metadata size of a tiny file, plus the numbers of the paper's networks with 32 shots."""
    save(tmp_path / "a.safetensors", feed_forward_avatar(), kind="feed_forward")
    beside = (tmp_path / "a.safetensors").stat().st_size - 4 * NETWORKS.plan.adain_size - LANDMARKS.nbytes
    assert 0 < beside < 10_000
    assert beside + 4 * Networks().plan.adain_size + 4 * 32 * 70 * 2 < 100_000


def test_small_avatars_reject_other_meta_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ada.safetensors"
    save(path, feed_forward_avatar(), kind="feed_forward")
    other = save_tiny(tmp_path / "tiny.safetensors", seed=1)
    wanted = rf"needs the meta weights 'tiny' \(sha256 {meta().digest}\)"
    with pytest.raises(AvatarError, match=rf"{wanted}, but got 'tiny' \(sha256 {other.digest}\)"):
        load_avatar(path, meta=other)
    monkeypatch.setattr(pretrained, "_PRETRAINED", tmp_path)
    with pytest.raises(AvatarError, match=f"got 'tiny' .sha256 {other.digest}."):
        load_avatar(path)
    monkeypatch.setattr(pretrained, "_PRETRAINED", tmp_path / "none")
    with pytest.raises(AvatarError, match=rf"{wanted}: unknown pretrained weights 'tiny'"):
        load_avatar(path)
    with pytest.raises(AvatarError, match=rf"{wanted}: .*nowhere is neither"):
        load_avatar(path, meta=tmp_path / "nowhere")


@pytest.mark.parametrize(("bits", "share", "loss"), [("float16", 0.65, 0.1), ("int8", 0.45, 2.0)])
def test_a_compact_avatar_is_smaller_and_nearly_the_same(
    tmp_path: Path, saved: Path, bits: str, share: float, loss: float
) -> None:
    full = load_avatar(saved)
    path = tmp_path / "small.safetensors"
    done = save_compact(path, full, meta=meta(), bits=bits)
    small = load_avatar(path, meta=meta())
    assert (small.kind, small.digest, done.frames) == ("compact", done.digest, 2)
    assert small.notes["compaction"] == {"bits": bits, "loss": done.loss, "frames": 2, "of": full.digest}
    assert small.provenance.inputs == (SHOT,)
    np.testing.assert_array_equal(small.avatar.adain, full.avatar.adain)
    again = frame_difference(NETWORKS, full.avatar, small.avatar, LANDMARKS)
    assert again == pytest.approx(done.loss, rel=1e-3)
    assert 0 < done.loss < loss
    kernels = sum(x.size for x in jax.tree.leaves(full.avatar.generator_params) if x.ndim > 1)
    assert path.stat().st_size < saved.stat().st_size - kernels * (4 - np.dtype(bits).itemsize) * 0.8
    assert path.stat().st_size < share * saved.stat().st_size + 40_000  # the header weighs in these tiny networks


def test_quantized_differences_are_within_half_a_step() -> None:
    rng = np.random.default_rng(0)
    base = {"a/kernel": rng.normal(size=(3, 3, 8, 4)).astype(np.float32), "a/bias": np.zeros(4, np.float32)}
    change = rng.normal(size=(3, 3, 8, 4)) * np.array([1, 10, 100, 0])
    changed = {"a/kernel": (base["a/kernel"] + change).astype(np.float32), "a/bias": np.ones(4, np.float32)}
    restored = decode_difference(encode_difference(changed, base, bits="int8"), base)
    error = np.abs(restored["a/kernel"] - changed["a/kernel"]).max((0, 1, 2))
    steps = np.abs(change).max((0, 1, 2)) / 127
    assert (error <= 0.5 * steps + 1e-5).all()
    assert (error[:3] > 0.3 * steps[:3]).all()
    np.testing.assert_array_equal(restored["a/bias"], changed["a/bias"])
    with pytest.raises(ValueError, match="a/kernel is not finite"):
        encode_difference(changed | {"a/kernel": changed["a/kernel"] * 1e5}, base, bits="float16")


def test_compaction_from_the_command_line(tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(tmp_path / "tiny.safetensors")
    out = tmp_path / "small.safetensors"
    command = [str(saved), "--meta", str(tmp_path / "tiny.safetensors"), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    loss = load_avatar(out, meta=meta()).notes["compaction"]["loss"]
    assert f"mean absolute difference of 2 frames: {loss:.3f} of 255" in printed
    save_tiny(tmp_path / "tiny.safetensors", seed=1)
    out.unlink()
    assert main(command) == 1
    assert "was made from the meta weights 'tiny'" in capsys.readouterr().err
    assert not out.exists()
    before, command[-1] = saved.read_bytes(), str(tmp_path / "another_name.safetensors")
    (tmp_path / "another_name.safetensors").symlink_to(saved)
    for itself in (str(saved), command[-1]):
        assert main([*command[:-1], itself]) == 1
        assert "is the avatar itself, in full precision: name another file with --out" in capsys.readouterr().err
    assert saved.read_bytes() == before


def test_compaction_needs_landmarks(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", tuned_avatar(), landmarks=None)
    with pytest.raises(AvatarError, match="landmarks are needed"):
        save_compact(tmp_path / "b.safetensors", load_avatar(tmp_path / "a.safetensors"), meta=meta())


def test_missing_truncated_and_altered_files(saved: Path) -> None:
    with pytest.raises(AvatarError, match=r"no avatar at .*other\.safetensors"):
        load_avatar(saved.with_name("other.safetensors"))
    with pytest.raises(AvatarError, match="is a folder"):
        load_avatar(saved.parent)
    content = saved.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(AvatarError, match="truncated"):
            load_avatar(saved)
    rng = np.random.default_rng(1)
    for place in [*range(8), *rng.integers(8, 8 + header, 60), *rng.integers(8 + header, len(content), 30)]:
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(bytes(altered))
        with pytest.raises(AvatarError, match=r"not a readable safetensors file|was modified|has the format"):
            load_avatar(saved)


def rewrite(path: Path, *, format_: str = "th_jax.avatar/1", **changes: object) -> None:
    """Change the file's description with a matching checksum, as another program might."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(json.loads(header["__metadata__"]["description"]) | changes)
    digest = load_avatar(path, meta=meta()).digest
    header["__metadata__"] = {"format": format_, "description": text, "sha256": checksum(FORMAT, text, digest)}
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


def test_files_of_other_formats_kinds_and_networks(saved: Path) -> None:
    content = saved.read_bytes()
    for changes, message in (
        ({"format_": "th_jax.avatar/2"}, r"has the format 'th_jax.avatar/2', .* expects 'th_jax.avatar/1'"),
        ({"format_": "th_jax.meta/1"}, "has the format 'th_jax.meta/1'"),
        ({"kind": "huge"}, "kind 'huge'; .*full, feed_forward, compact"),
        ({"networks": {"image_size": 17}}, r"networks .* not support"),
        ({"networks": {"image_size": 16, "base_width": 8}}, r"not a valid avatar: .*weights of Networks"),
        ({"kind": "compact"}, r"parameter differences: .* must be \[.*\], but is missing"),
    ):
        saved.write_bytes(content)
        rewrite(saved, **changes)
        with pytest.raises(AvatarError, match=message):
            load_avatar(saved, meta=meta())


def test_saving_rejects_what_could_not_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tuned = tuned_avatar()
    for avatar, changes, message in (
        (tuned._replace(adain=tuned.adain.at[3].set(np.nan)), {}, "not a valid avatar: adain is not finite"),
        (tuned._replace(adain=tuned.adain[1:]), {}, r"not a valid avatar: .*adain is \(\d+,\) instead of"),
        (tuned, {"networks": Networks(image_size=16, base_width=8)}, "not a valid avatar: .*weights of"),
        (tuned, {"kind": "feed_forward"}, "has its own"),
        (feed_forward_avatar(), {"kind": "feed_forward", "meta": None}, "pass them as `meta`"),
        (tuned, {"landmarks": LANDMARKS[:, :60]}, "68 iBUG points"),
        (tuned, {"landmarks": LANDMARKS + np.inf}, "must be finite, or NaN"),
        (tuned, {"notes": {"kind": "x"}}, "reserved keys in the notes: kind"),
        (tuned, {"notes": {"where": tmp_path}}, "notes must be JSON values"),
    ):
        with pytest.raises(AvatarError, match=message):
            save(path, avatar, **changes)
    with pytest.raises(AvatarError, match=r"must end in \.safetensors, got .*x\.npz"):
        save(tmp_path / "x.npz", tuned)
    (tmp_path / "y.safetensors").mkdir()
    with pytest.raises(AvatarError, match="is a folder"):
        save(tmp_path / "y.safetensors", tuned)
    assert [p.name for p in tmp_path.iterdir()] == ["y.safetensors"]


def test_opening_an_avatar_loads_neither_opencv_nor_optax(saved: Path) -> None:
    code = f"""
import sys
from th_jax.avatars.file import load_avatar
load_avatar({str(saved)!r})
print([name for name in ("orbax", "cv2", "tensorflow", "optax") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
