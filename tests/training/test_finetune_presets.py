"""The presets of fine-tuning: one place of numbers, changed by a file, mistakes named."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs import finetune, finetune_heads
from th_jax.losses import LossWeights
from th_jax.training.finetune_presets import finetune_arguments, finetune_preset, read_settings


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
        ({"epoch": 3}, "'epoch' is no setting of fine-tuning; did you mean 'epochs'"),
        ({"optimizers": 3}, "the fine-tuning setting 'optimizers' is a section, but 3 came"),
        ({"rounds": {"width": 1, "at_one": 2}}, "'at_one' is no setting of the section rounds"),
        ({"preset": "face"}, "no fine-tuning preset called 'face'; there are paper, heads"),
        ([1], "must be a JSON object, but are list"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finetune_arguments(read_settings(written(tmp_path, settings)), {"vgg16": {}})


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no fine-tuning settings at"):
        read_settings(str(tmp_path / "nowhere.json"))
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ValueError, match=r"half.json are no JSON"):
        read_settings(str(tmp_path / "half.json"))
    with pytest.raises(ValueError, match="no fine-tuning preset called 'embedded'"):
        read_settings("embedded")
