"""The short API: images to an avatar that saves and renders itself, with the preset of its meta weights."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import th_jax
from th_jax.avatars import make, person_files
from th_jax.avatars.file import LoadedAvatar
from th_jax.avatars.settings import default_config
from th_jax.consent import NOT_RECORDED, Basis, ConsentError, make_consent, revoke_consent, write_consent
from th_jax.data.shots import ImageOutcomes
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.training.finetune import feed_forward
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.training.presets import preset_of
from th_jax.types import Avatar, MetaWeights, Shots
from th_jax.weights import MetaModel

QUICK = {
    "epochs": 1,
    "loss_weights": LossWeights({}, pixel=1.0),
    "optimizers": Optimizers(AdamSettings(1e-3), AdamSettings(1e-3)),
}


@pytest.fixture(scope="module")
def meta() -> MetaModel:
    networks = Networks(image_size=16, base_width=4)
    weights = networks.init(jax.random.key(0))
    return MetaModel(networks=networks, weights=weights, perceptual={}, description={"name": "tiny"}, digest="0" * 64)


def noise(*, size: int = 16, count: int = 2) -> Shots:
    rng = np.random.default_rng(0)
    points = rng.uniform(0.2, 0.8, (count, 68, 2)).astype(np.float32)
    return Shots(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), points, np.ones(count, np.float32))


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings without frozen networks, instead of the preset."""
    monkeypatch.setattr(make, "finetune_settings", lambda meta: dict(QUICK))


def test_shots_become_an_avatar_that_saves_and_renders_itself(
    meta: MetaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickly_compiled: None
) -> None:
    quick(monkeypatch)
    shots = noise()
    avatar = th_jax.finetune(meta, shots)
    assert (avatar.kind, avatar.notes["steps"], avatar.notes["shots"]) == ("full", 1, 2)
    assert (avatar.provenance.consent, avatar.provenance.notes) == (None, NOT_RECORDED)
    assert len(avatar.provenance.inputs) == 2
    frames = avatar.render(shots.landmarks)
    assert (frames.shape, frames.dtype) == ((2, 16, 16, 3), np.uint8)
    digest = avatar.save(tmp_path / "ada.safetensors")
    again = th_jax.load_avatar(tmp_path / "ada.safetensors")
    assert (again.digest, avatar.digest, again.description) == (digest, digest, avatar.description)
    np.testing.assert_array_equal(again.render(shots.landmarks), frames)
    np.testing.assert_array_equal(again.landmarks, shots.landmarks)
    longer = th_jax.finetune(meta, shots, epochs=2)
    assert longer.notes["steps"] == 2, "a setting takes the place of the preset's"


@pytest.mark.parametrize("train", [True, False])
def test_products_have_the_precision_of_the_command_line(
    train: bool, meta: MetaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset's, or that of the setting, around both tracing and running; then the caller's again."""
    seen: list[Any] = []

    def traced(networks: Networks, weights: MetaWeights, shots: Shots) -> Avatar:
        seen.append(jax.config.jax_default_matmul_precision)
        return feed_forward(networks, weights, shots)

    def making(networks: Networks, **settings: Any) -> Any:
        assert settings == QUICK

        def run(weights: MetaWeights, perceptual: Any, shots: Shots, *, key: Any) -> Any:
            return jax.jit(traced, static_argnums=0)(networks, weights, shots), {"loss/generator": np.zeros(1)}

        return run

    quick(monkeypatch)
    monkeypatch.setattr(make, "feed_forward", traced)
    monkeypatch.setattr(make, "make_finetune", making)
    expected = default_config(preset_of(meta.description))["matmul_precision"]
    assert expected != "highest"
    with jax.default_matmul_precision("highest"):
        th_jax.finetune(meta, noise(), train=train)
        th_jax.finetune(meta, noise(), train=train, matmul_precision="bfloat16")
        assert (seen, jax.config.jax_default_matmul_precision) == ([expected, "bfloat16"], "highest")
    with pytest.raises(ValueError, match="got half"):
        th_jax.finetune(meta, noise(), train=train, matmul_precision="half")


def test_without_training_it_is_the_meta_weights_own_generator(meta: MetaModel, tmp_path: Path) -> None:
    avatar = th_jax.finetune(meta, noise(size=32), train=False)
    assert avatar.notes["steps"] == 0
    generator = meta.weights.synthesis.params["generator"]
    jax.tree.map(np.testing.assert_array_equal, avatar.avatar.generator_params, generator)
    assert avatar.save(tmp_path / "ada.safetensors") == avatar.digest


def test_a_folder_and_its_consent(meta: MetaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(path: Path, *, size: int, **options: Any) -> tuple[Shots, ImageOutcomes]:
        asked.append((path, size))
        return noise(size=size), ImageOutcomes(1)

    monkeypatch.setattr(person_files, "shots_and_outcomes", read)
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "0.jpg").write_bytes(b"ada")
    record, path = make_consent(tmp_path / "ada", subject="Ada", basis=Basis.SELF), tmp_path / "ada.consent.json"
    write_consent(path, record)
    avatar: LoadedAvatar = th_jax.finetune(meta, str(tmp_path / "ada"), consent=path, train=False)
    assert asked == [(tmp_path / "ada", 16)]
    assert (avatar.provenance.consent, avatar.notes["consent"]["basis"]) == (record.digest, "self")
    with pytest.raises(ValueError, match="covers files"):
        th_jax.finetune(meta, noise(), consent=path)
    revoke_consent(path)
    with pytest.raises(ConsentError, match="revoked"):
        th_jax.finetune(meta, tmp_path / "ada", consent=path)
    assert len(asked) == 1, "nothing is read for a record that does not hold"
