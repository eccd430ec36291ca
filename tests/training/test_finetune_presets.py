"""The presets of fine-tuning: one place of numbers, changed by a file, mistakes named."""

import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from configs import finetune, finetune_heads
from th_jax.losses import LossWeights
from th_jax.training.finetune_people import make_finetune
from th_jax.training.presets import (
    finetune_arguments,
    finetune_preset,
    finetune_settings,
    preset_of,
    read_settings,
)


class Named(NamedTuple):
    """What of meta weights decides."""

    description: dict[str, Any]
    perceptual: dict[str, Any]


def written(folder: Path, settings: Any) -> str:
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return str(path)


def test_the_configs_are_the_presets() -> None:
    for config, name in ((finetune, "paper"), (finetune_heads, "heads")):
        settings = config.get_config().to_dict()
        assert {key: settings[key] for key in finetune_preset(name)} == finetune_preset(name)
        assert set(settings) - set(finetune_preset(name)) == {"name", "early_stopping"}
    assert finetune_heads.get_config().optimizers.synthesis.to_dict() == {
        "learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.99, "eps": 1e-5
    }  # fmt: skip
    assert finetune.get_config().optimizers.synthesis.learning_rate == 5e-5


def test_a_preset_is_its_callers_to_change() -> None:
    changed = finetune_preset("heads")
    changed["optimizers"]["synthesis"]["learning_rate"] = 1.0
    assert finetune_preset("heads")["optimizers"]["synthesis"]["learning_rate"] == 2e-4


def test_a_file_changes_a_preset(tmp_path: Path) -> None:
    file = written(tmp_path, {"preset": "heads", "epochs": 3, "optimizers": {"synthesis": {"beta2": 0.5}}})
    expected = finetune_preset("heads")
    expected["epochs"] = 3
    expected["optimizers"]["synthesis"]["beta2"] = 0.5
    assert read_settings(file) == expected
    assert read_settings("paper") == finetune_preset("paper")
    arguments = finetune_arguments(read_settings(file), {})
    assert arguments["loss_weights"].pixel == 200
    assert (arguments["epochs"], arguments["adversary"], arguments["chunk_steps"]) == (3, 4.0, 10)
    with pytest.raises(ValueError, match="no published loss weights are for the frozen networks"):
        finetune_arguments(finetune_preset("paper"), {})
    own = finetune_arguments(finetune_preset("paper"), {"vgg16": {}})
    assert own["loss_weights"] == LossWeights({"vgg16": 1.5e-1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "'epoch' is not a setting of fine-tuning; did you mean 'epochs'"),
        ({"optimizers": 3}, "the fine-tuning setting 'optimizers' is a section, but 3 was given"),
        ({"rounds": {"width": 1, "at_one": 2}}, "'at_one' is not a setting of the section rounds"),
        ({"preset": "face"}, "unknown fine-tuning preset 'face'; known are paper, heads"),
        ([1], "must be a JSON object, but are list"),
        ({"losses": {"nonsense": 1}}, "unknown loss weight 'nonsense'; expected content, feature_matching"),
        ({"preset": "heads", "losses": {"nonsense": 1}}, "unknown loss weight 'nonsense'"),
        ({"losses": {"pixel": -1}}, "the loss weight pixel must be finite and at least 0, got -1"),
        ({"losses": {"pixel": "much"}}, "loss weights must be numbers, and content"),
        ({"losses": {"content": 3}}, "loss weights must be numbers, and content"),
        ({"epochs": 0}, "'epochs' must be a whole number of at least 1, but is 0"),
        ({"epochs": 2.5}, "'epochs' must be a whole number of at least 1, but is 2.5"),
        ({"epochs": True}, "'epochs' must be a whole number of at least 1, but is True"),
        ({"epochs": {"many": 1}}, "'epochs' is not a section, but {'many': 1} was given"),
        ({"adversary": -1}, "'adversary' must be a number of at least 0, but is -1"),
        ({"averaging": 1}, r"'averaging' must be a number in \[0, 1\), but is 1"),
        ({"discriminator_updates": 0}, "'discriminator_updates' must be a whole number of at least 1, but is 0"),
        ({"adversary": "strong"}, "'adversary' must be a number of at least 0, but is 'strong'"),
        ({"seed": "x"}, "'seed' must be a whole number, but is 'x'"),
        ({"rounds": {"chunk_steps": 0}}, "'chunk_steps' must be a whole number of at least 1, but is 0"),
        ({"rounds": {"at_once": 3, "vmap_width": 2}}, "at_once must be a multiple of vmap_width, but they are 3 and 2"),
        ({"optimizers": {"synthesis": {"learning_rate": "x"}}}, "an optimizer cannot be built from .*learning_rate"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finetune_arguments(read_settings(written(tmp_path, settings)), {"vgg16": {}})


def test_losses_without_a_preset_change_the_published_ones(tmp_path: Path) -> None:
    changes = {"losses": {"pixel": 200, "feature_matching": 0, "face_content": 1, "face_size": 32}}
    losses = finetune_arguments(read_settings(written(tmp_path, changes)), {"vgg16": {}})["loss_weights"]
    assert losses == LossWeights({"vgg16": 1.5e-1}, feature_matching=0.0, pixel=200.0, face_content=1.0, face_size=32)


def test_a_section_that_is_missing_is_named() -> None:
    settings = finetune_preset("paper")
    del settings["rounds"]
    with pytest.raises(ValueError, match="not settings of fine-tuning: they lack rounds"):
        finetune_arguments(settings, {"vgg16": {}})


@pytest.mark.parametrize(
    ("name", "preset"), [("heads", "heads"), ("voxceleb2", "paper"), ("paper", "paper"), (None, "paper")]
)
def test_the_weights_name_decides_on_the_preset(name: str | None, preset: str) -> None:
    """Not the path: weights keep their name wherever they are copied to."""
    meta = Named({"name": name}, {"vgg16": {}})
    assert preset_of(meta.description) == preset
    wanted = finetune_arguments(finetune_preset(preset), meta.perceptual)
    settings = finetune_settings(meta)
    assert settings == {name: value for name, value in wanted.items() if name not in ("at_once", "vmap_width")}
    assert set(settings) < set(inspect.signature(make_finetune).parameters)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_settings(str(tmp_path / "nowhere.json"))
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ValueError, match=r"half.json is not valid JSON"):
        read_settings(str(tmp_path / "half.json"))
    with pytest.raises(ValueError, match="unknown fine-tuning preset 'embedded'"):
        read_settings("embedded")


@pytest.mark.parametrize(
    ("name", "preset"),
    [("heads", "heads"), ("heads_128", "heads"), ("headstrong", "paper"), ("voxceleb", "paper"), (3, "paper")],
)
def test_names_that_continue_a_preset_have_it(name: object, preset: str) -> None:
    assert preset_of({"name": name}) == preset
