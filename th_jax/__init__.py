"""Few-shot neural talking heads in JAX and Flax, after Zakharov et al., ICCV 2019.

The public names are loaded when they are first used (PEP 562): importing this package imports neither TensorFlow nor orbax
nor dlib, and takes about a second.
"""

import importlib
from typing import TYPE_CHECKING, Any

from th_jax.version import __version__

if TYPE_CHECKING:
    from th_jax.avatars.file import LoadedAvatar as LoadedAvatar
    from th_jax.avatars.file import load_avatar as load_avatar
    from th_jax.avatars.file import save_avatar as save_avatar
    from th_jax.avatars.make import finetune as finetune
    from th_jax.data.shots import load_shots as load_shots
    from th_jax.driving.animate import animate as animate
    from th_jax.landmarks.draw import draw_landmarks as draw_landmarks
    from th_jax.losses import LossWeights as LossWeights
    from th_jax.losses import loss_preset as loss_preset
    from th_jax.models.networks import Networks as Networks
    from th_jax.perceptual.frozen import load_perceptual as load_perceptual
    from th_jax.training.finetune_people import finetune_many as finetune_many
    from th_jax.training.finetune_people import make_finetune as make_finetune
    from th_jax.training.presets import finetune_settings as finetune_settings
    from th_jax.types import Avatar as Avatar
    from th_jax.types import EpisodeBatch as EpisodeBatch
    from th_jax.types import MetaWeights as MetaWeights
    from th_jax.types import NetworkState as NetworkState
    from th_jax.types import Shots as Shots
    from th_jax.weights import MetaModel as MetaModel
    from th_jax.weights import load_meta as load_meta
    from th_jax.weights import load_pretrained as load_pretrained

_HOMES = {
    "Avatar": "th_jax.types",
    "EpisodeBatch": "th_jax.types",
    "LoadedAvatar": "th_jax.avatars.file",
    "LossWeights": "th_jax.losses",
    "MetaModel": "th_jax.weights",
    "MetaWeights": "th_jax.types",
    "NetworkState": "th_jax.types",
    "Networks": "th_jax.models.networks",
    "Shots": "th_jax.types",
    "animate": "th_jax.driving.animate",
    "draw_landmarks": "th_jax.landmarks.draw",
    "finetune": "th_jax.avatars.make",
    "finetune_many": "th_jax.training.finetune_people",
    "finetune_settings": "th_jax.training.presets",
    "load_avatar": "th_jax.avatars.file",
    "load_meta": "th_jax.weights",
    "load_perceptual": "th_jax.perceptual.frozen",
    "load_pretrained": "th_jax.weights",
    "load_shots": "th_jax.data.shots",
    "loss_preset": "th_jax.losses",
    "make_finetune": "th_jax.training.finetune_people",
    "save_avatar": "th_jax.avatars.file",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'th_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *_HOMES})
