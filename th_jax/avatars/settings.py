"""Configs of enrollment: a preset of fine-tuning with early stopping, and their conversion to arguments."""

from typing import Any

from th_jax.avatars.early_stopping import StoppingSettings
from th_jax.avatars.enroll import Finetuning
from th_jax.models.checks import check_setting_names, construct
from th_jax.training.presets import check_settings, finetune_arguments, finetune_preset
from th_jax.weights import MetaModel

OWN_SECTIONS = ("name", "early_stopping")
"""Sections of a config that belong to enrollment only."""


def check_config(config: dict[str, Any]) -> None:
    """Check that a config is a complete one of fine-tuning with values in range.

    Raises:
        ValueError: naming what is missing, unknown or out of range.
    """
    known = finetune_preset("paper")
    if missing := [name for name in (*known, "early_stopping") if name not in config]:
        raise ValueError(
            f"this is not a config of fine-tuning: it lacks {', '.join(missing)}; begin with configs/finetune.py"
        )
    check_setting_names("a config of fine-tuning", [*known, *OWN_SECTIONS], config)
    _stopping_of(config)
    check_settings(settings_of(config))


def _stopping_of(config: dict[str, Any]) -> StoppingSettings | None:
    """Return the checked settings of early stopping; None if it is disabled."""
    stopping = construct(StoppingSettings, config["early_stopping"], what="the section early_stopping")
    return stopping.checked() if stopping.from_shots else None


def finetuning_of(config: dict[str, Any], meta: MetaModel) -> Finetuning:
    """Convert a config to the arguments of fine-tuning.

    Raises:
        ValueError: if a value is invalid.
    """
    stopping = _stopping_of(config)
    arguments = finetune_arguments(settings_of(config), meta.perceptual)
    return Finetuning(**arguments, seed=config["seed"], stopping=stopping)


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config without the sections of enrollment."""
    return {name: value for name, value in config.items() if name not in OWN_SECTIONS}


def default_config(preset: str) -> dict[str, Any]:
    """Return a preset with the sections of enrollment, as configs/finetune.py has them.

    Args:
        preset: "paper", or the name of meta weights that have their own preset.
    """
    name = "finetune" if preset == "paper" else f"finetune_{preset}"
    return finetune_preset(preset) | {"name": name, "early_stopping": StoppingSettings()._asdict()}
