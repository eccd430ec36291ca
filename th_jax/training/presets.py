"""Named fine-tuning settings, for the configs and for code that must not read configs, such as the evaluation."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from th_jax.losses import LossWeights, changed_losses, loss_preset
from th_jax.models.checks import check_setting_names
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.storage.setting_names import current_names
from th_jax.storage.strict_json import read_json
from th_jax.training.finetune_people import default_losses
from th_jax.training.guard import GuardSettings
from th_jax.training.optimizers import AdversarySchedule, Optimizers

Settings = dict[str, Any]
"""JSON values, in the sections of `FINETUNE_PRESETS`."""

_PAPER: Settings = {
    "seed": 0,
    # Precision of float32 matrix products: TPUs and GPUs round them to fewer bits by default.
    "matmul_precision": "high",
    # th_jax.losses.loss_preset; "" selects the published set for the frozen networks of the meta-learned weights
    "losses": {"preset": ""},
    # Factor of the adversarial and the feature matching loss: the final value of meta-learning.
    "adversary": 1.0,
    # th_jax.training.finetune.make_finetune_step
    "discriminator_updates": 2,
    "averaging": 0.0,
    # th_jax.training.optimizers.Optimizers
    "optimizers": {
        "synthesis": {"learning_rate": 5e-5, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
        "discriminator": {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.999, "eps": 1e-5},
    },
    # 40, 40 and 160 steps for 1, 8 and 32 shots
    "epochs": 40,
    # th_jax.training.finetune_people
    "rounds": {"at_once": 1, "vmap_width": 1, "chunk_steps": 10},
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
"""The paper's preset (section 4: the rates of meta-learning), and the preset of the bundled weights `heads`."""


def finetune_preset(name: str) -> Settings:
    """Return a copy of a preset, which the caller may modify.

    Raises:
        ValueError: if the preset is unknown; the message lists the known ones.
    """
    if name not in FINETUNE_PRESETS:
        raise ValueError(f"unknown fine-tuning preset {name!r}; known are {', '.join(FINETUNE_PRESETS)}")
    return copy.deepcopy(FINETUNE_PRESETS[name])


def _warn(text: str) -> None:
    warnings.warn(text, FutureWarning, stacklevel=4)


def read_settings(named: str, *, on_message: Callable[[str], Any] = _warn) -> Settings:
    """Read fine-tuning settings from a JSON file.

    Settings that the file omits are those of the preset in its entry "preset", by default "paper".

    Args:
        named: path of a file that ends in .json, or the name of a preset.
        on_message: called with a hint for each setting that has an old name; a FutureWarning by default.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is not a JSON object or has an unknown setting, or the preset is unknown.
    """
    if not named.endswith(".json"):
        try:
            return finetune_preset(named)
        except ValueError as error:
            raise ValueError(f"{error}, or name a file that ends in .json") from None
    path = Path(named)
    if not path.is_file():
        raise FileNotFoundError(f"the settings file {path} does not exist")
    changes = read_json(path)
    if not isinstance(changes, dict):
        raise ValueError(f"the fine-tuning settings {path} must be a JSON object, but are {type(changes).__name__}")
    changes = current_names(changes, on_message=on_message)
    return _merged(finetune_preset(str(changes.pop("preset", "paper"))), changes)


_MINIMUM = {
    "steps": 0,
    "health_every": 0,
    "log_every": 1,
    "evaluate_every": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "max_consecutive_nonfinite_steps": 1,
    "max_rollbacks": 0,
}
"""Minimum values of the step-interval settings of meta-learning."""


def check_meta_settings(settings: Mapping[str, Any], *, known: Mapping[str, Any]) -> None:
    """Check that settings are a complete config of meta-learning with values in range.

    Args:
        settings: settings of a run.
        known: settings of configs/defaults.py.

    Raises:
        ValueError: naming what is missing, unknown or out of range; also for other configs, such as those of fine-tuning.
    """
    if missing := [name for name in known if name not in settings]:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise ValueError(f"this is not a config of meta-learning: it lacks {named}; begin with configs/defaults.py")
    check_setting_names("a config of meta-learning", known, settings)
    for section in (name for name, value in known.items() if isinstance(value, dict)):
        if not isinstance(settings[section], dict):
            raise ValueError(f"{section} is a section of settings in configs/defaults.py, but is {settings[section]!r}")
    for section in ("data", "episodes", "reading", "heldout", "guard"):
        if missing := [name for name in known[section] if name not in settings[section]]:
            raise ValueError(f"the section {section} lacks {', '.join(missing)}; configs/defaults.py has every setting")
        check_setting_names(f"the section {section}", known[section], settings[section])
    Networks.from_settings(settings["networks"])
    Optimizers.from_settings(settings["optimizers"])
    AdversarySchedule.from_settings(settings["adversary"])
    loss_preset(**settings["losses"])
    counts = {f"episodes.{name}": (settings["episodes"][name], 1) for name in ("batch_size", "sources")}
    counts |= {name: (settings[name], least) for name, least in _MINIMUM.items()}
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be at least {least}, but is {value!r}")
    GuardSettings(**settings["guard"]).checked()
    if not isinstance(settings["keep_hours"], int | float) or not 0 <= settings["keep_hours"] < math.inf:
        raise ValueError(f"keep_hours must be 0 or more, but is {settings['keep_hours']!r}")
    epochs = settings["epochs"]
    if not settings["steps"] and not (isinstance(epochs, int | float) and 0 < epochs < math.inf):
        raise ValueError(f"a run needs steps or epochs above 0, but steps is 0 and epochs is {epochs!r}")


def preset_of(description: Mapping[str, Any]) -> str:
    """Return the preset for meta-learned weights by the name recorded in them, else "paper".

    "heads" and names that continue it, such as "heads_run", have the preset "heads". The file name of the weights does not
    matter.

    Args:
        description: description of the meta-learned weights (`MetaModel.description`).
    """
    name = description.get("name")
    candidates = (name, name.partition("_")[0]) if isinstance(name, str) else ()
    return next((preset for preset in candidates if preset in FINETUNE_PRESETS), "paper")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Validate settings as far as possible before weights are loaded.

    Args:
        settings: settings as returned by `finetune_preset` or `read_settings`.

    Raises:
        ValueError: if a section is missing or unknown, or a number is out of range.
    """
    check_setting_names("fine-tuning", _PAPER, settings)
    if missing := [name for name in _PAPER if name not in settings]:
        raise ValueError(f"these are not settings of fine-tuning: they lack {', '.join(missing)}; begin with a preset")
    for name, value in _PAPER.items():
        if isinstance(value, dict) != isinstance(settings[name], Mapping):
            kind = "a section" if isinstance(value, dict) else "not a section"
            raise ValueError(f"the fine-tuning setting {name!r} is {kind}, but {settings[name]!r} was given")
    rounds = settings["rounds"]
    check_setting_names("the section rounds", _PAPER["rounds"], rounds)
    counts = {name: settings[name] for name in ("epochs", "discriminator_updates")}
    for name, value in {**counts, **rounds}.items():
        if type(value) is not int or value < 1:  # JSON's true is not 1
            raise ValueError(f"the fine-tuning setting {name!r} must be a whole number of at least 1, but is {value!r}")
    at_once, vmap_width = rounds.get("at_once", 1), rounds.get("vmap_width", 1)
    if at_once % vmap_width:
        raise ValueError(f"at_once must be a multiple of vmap_width, but they are {at_once} and {vmap_width}")
    if type(settings["seed"]) is not int:
        raise ValueError(f"the fine-tuning setting 'seed' must be a whole number, but is {settings['seed']!r}")
    adversary = settings["adversary"]
    if type(adversary) not in (int, float) or not 0 <= adversary < math.inf:
        raise ValueError(f"the fine-tuning setting 'adversary' must be a number of at least 0, but is {adversary!r}")
    averaging = settings["averaging"]
    if type(averaging) not in (int, float) or not 0 <= averaging < 1:
        raise ValueError(f"the fine-tuning setting 'averaging' must be a number in [0, 1), but is {averaging!r}")
    _losses(settings["losses"], LossWeights)
    Optimizers.from_settings(settings["optimizers"])


def finetune_arguments(settings: Mapping[str, Any], perceptual: PerceptualWeights) -> dict[str, Any]:
    """Convert settings to arguments of `finetune_many`.

    Args:
        settings: settings as returned by `finetune_preset` or `read_settings`.
        perceptual: weights of the frozen networks, which determine the losses if the settings name no loss preset.

    Raises:
        ValueError: if a value is invalid.
    """
    check_settings(settings)
    return {
        "epochs": settings["epochs"],
        "loss_weights": _losses(settings["losses"], lambda: default_losses(perceptual)),
        "optimizers": Optimizers.from_settings(settings["optimizers"]),
        "adversary": float(settings["adversary"]),
        "discriminator_updates": settings["discriminator_updates"],
        "averaging": float(settings["averaging"]),
        **settings["rounds"],
    }


@runtime_checkable
class MetaWithPerceptual(Protocol):
    """The part of `th_jax.MetaModel` that determines the fine-tuning settings."""

    @property
    def description(self) -> Mapping[str, Any]:
        """JSON values that describe the weights, including their name."""

    @property
    def perceptual(self) -> PerceptualWeights:
        """Weights of the frozen networks."""


def finetune_settings(meta: MetaWithPerceptual) -> dict[str, Any]:
    """Return the preset for meta-learned weights as keyword arguments of `make_finetune`.

    Use them as `make_finetune(meta.networks, **finetune_settings(meta))`. They are the settings that finetune.py uses without
    a config, except for the precision of matrix products, which is no argument: `th_jax.finetune` sets it around
    `make_finetune`, with `jax.default_matmul_precision("high")`.

    Raises:
        ValueError: if no published loss weights use these frozen networks.
    """
    arguments = finetune_arguments(finetune_preset(preset_of(meta.description)), meta.perceptual)
    return {name: value for name, value in arguments.items() if name not in ("at_once", "vmap_width")}


def _losses(section: Mapping[str, Any], without_preset: Callable[[], LossWeights]) -> LossWeights:
    changes = {
        name: value if name.endswith("_size") else _as_float(value)
        for name, value in section.items()
        if name != "preset"
    }
    preset = section.get("preset", "")
    return changed_losses(loss_preset(preset) if preset else without_preset(), changes)


def _as_float(value: Any) -> Any:
    """Convert whole numbers to floats, because JSON may contain 200 for 200.0."""
    if isinstance(value, Mapping):
        return {name: _as_float(number) for name, number in value.items()}
    return float(value) if type(value) is int else value


def _merged(settings: Settings, changes: Mapping[str, Any], *, section: str = "fine-tuning") -> Settings:
    if section == "fine-tuning":
        check_setting_names(section, settings, changes)
    for name, value in changes.items():
        if not isinstance(settings.get(name), dict):
            settings[name] = value
        elif isinstance(value, dict):
            settings[name] = _merged(settings[name], value, section=name)
        else:
            raise ValueError(f"the fine-tuning setting {name!r} is a section, but {value!r} was given")
    return settings
