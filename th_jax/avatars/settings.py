"""Configs of enrollment: a preset of fine-tuning with early stopping, and their conversion to arguments."""

from typing import Any

from th_jax.avatars.early_stopping import StoppingSettings
from th_jax.avatars.enroll import Finetuning
from th_jax.training.presets import finetune_arguments, finetune_preset
from th_jax.weights import MetaModel

OWN_SECTIONS = ("name", "early_stopping")
"""Sections of a config that belong to enrollment only."""


def finetuning_of(config: dict[str, Any], meta: MetaModel) -> Finetuning:
    """Convert a config to the arguments of fine-tuning."""
    stopping = StoppingSettings(**config["early_stopping"]) if config["early_stopping"]["from_shots"] else None
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
