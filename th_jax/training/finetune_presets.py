"""The numbers of fine-tuning under names: for the configs, and for whoever may not read configs, such as the evaluation."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from th_jax.losses import LossWeights, loss_preset
from th_jax.models.boundary import check_setting_names
from th_jax.perceptual.weights import PerceptualWeights
from th_jax.training.finetune_person import default_losses
from th_jax.training.optimizers import Optimizers

Settings = dict[str, Any]
"""JSON values, in the sections of `FINETUNE_PRESETS`."""

_PAPER: Settings = {
    "seed": 0,
    # Of products of float32 numbers: TPUs and GPUs would round them to fewer bits by default.
    "matmul_precision": "high",
    # th_jax.losses.loss_preset; "" is the published set for the frozen networks of the meta weights
    "losses": {"preset": ""},
    # Factor of the score and of feature matching: the one that meta-learning ended with.
    "adversary": 1.0,
    # th_jax.training.optimizers.Optimizers
    "optimizers": {
        "synthesis": {"learning_rate": 5e-5, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
        "discriminator": {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
    },
    # 40, 40 and 160 steps for 1, 8 and 32 shots
    "epochs": 40,
    # th_jax.training.finetune_many
    "rounds": {"at_once": 1, "width": 1, "chunk_steps": 10},
}
_HEADS: Settings = _PAPER | {
    "losses": {"preset": "heads", "pixel": 200.0},
    "adversary": 4.0,
    "optimizers": {
        "synthesis": _PAPER["optimizers"]["synthesis"] | {"learning_rate": 2e-4, "beta2": 0.99},
        "discriminator": _PAPER["optimizers"]["discriminator"] | {"learning_rate": 2e-4, "beta2": 0.99},
    },
}

FINETUNE_PRESETS: Mapping[str, Settings] = {"paper": _PAPER, "heads": _HEADS}
"""The paper's (section 4: meta-learning's rates), and the one of the bundled weights `heads`."""


def finetune_preset(name: str) -> Settings:
    """A copy of a preset, for its caller to change.

    Raises:
        ValueError: if there is none of that name, naming those that there are.
    """
    if name not in FINETUNE_PRESETS:
        raise ValueError(f"there is no fine-tuning preset called {name!r}; there are {', '.join(FINETUNE_PRESETS)}")
    return copy.deepcopy(FINETUNE_PRESETS[name])


def read_settings(named: str) -> Settings:
    """The settings in a JSON file, whatever it leaves out as in the preset that it names ("preset", by default "paper").

    Args:
        named: path of a file that ends in .json, or the name of a preset.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON object, or has an unknown setting.
    """
    if not named.endswith(".json"):
        return finetune_preset(named)
    path = Path(named)
    if not path.is_file():
        raise FileNotFoundError(f"there are no fine-tuning settings at {path}")
    try:
        changes = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the fine-tuning settings {path} are no JSON: {error}") from error
    if not isinstance(changes, dict):
        raise ValueError(f"the fine-tuning settings {path} must be a JSON object, but are {type(changes).__name__}")
    return _merged(finetune_preset(str(changes.pop("preset", "paper"))), changes)


def finetune_arguments(settings: Mapping[str, Any], perceptual: PerceptualWeights) -> dict[str, Any]:
    """Settings as the arguments of `finetune_many`: epochs, loss_weights, optimizers, adversary and the rounds.

    Args:
        settings: as `finetune_preset` and `read_settings` give them.
        perceptual: the frozen networks of the meta weights, which decide on the losses if no preset is named.

    Raises:
        ValueError: for a value that fits no fine-tuning.
    """
    own: LossWeights | None = loss_preset(**settings["losses"]) if settings["losses"]["preset"] else None
    check_setting_names("the section rounds", _PAPER["rounds"], settings["rounds"])
    return {
        "epochs": settings["epochs"],
        "loss_weights": own or default_losses(perceptual),
        "optimizers": Optimizers.from_settings(settings["optimizers"]),
        "adversary": settings["adversary"],
        **settings["rounds"],
    }


def _merged(settings: Settings, changes: Mapping[str, Any], *, section: str = "fine-tuning") -> Settings:
    if section == "fine-tuning":
        check_setting_names(section, settings, changes)
    for name, value in changes.items():
        if not isinstance(settings.get(name), dict):
            settings[name] = value
        elif isinstance(value, dict):
            settings[name] = _merged(settings[name], value, section=name)
        else:
            raise ValueError(f"the fine-tuning setting {name!r} is a section, but {value!r} came")
    return settings
