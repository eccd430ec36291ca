"""Few-shot neural talking heads in JAX and Flax, after Zakharov et al., ICCV 2019.

The public names are loaded when they are first used (PEP 562): importing this package imports neither TensorFlow nor orbax
nor dlib, and takes about a second.
"""

import importlib
from typing import TYPE_CHECKING, Any

from th_jax.version import __version__

if TYPE_CHECKING:
    from th_jax.avatars import LoadedAvatar as LoadedAvatar
    from th_jax.avatars import load_avatar as load_avatar
    from th_jax.avatars import save_avatar as save_avatar
    from th_jax.landmarks import draw_landmarks as draw_landmarks
    from th_jax.losses import LossWeights as LossWeights
    from th_jax.losses import loss_preset as loss_preset
    from th_jax.models.networks import Networks as Networks
    from th_jax.perceptual.weights import load_perceptual as load_perceptual
    from th_jax.pretrained import MetaModel as MetaModel
    from th_jax.pretrained import load_meta as load_meta
    from th_jax.pretrained import load_pretrained as load_pretrained
    from th_jax.rendering.render import render as render
    from th_jax.rendering.render import render_stream as render_stream
    from th_jax.training.finetune_many import finetune_many as finetune_many
    from th_jax.training.finetune_person import make_finetune as make_finetune
    from th_jax.training.finetune_presets import finetune_settings as finetune_settings
    from th_jax.types import Avatar as Avatar
    from th_jax.types import EpisodeBatch as EpisodeBatch
    from th_jax.types import MetaWeights as MetaWeights
    from th_jax.types import NetworkState as NetworkState
    from th_jax.types import Shots as Shots

_HOMES = {
    "Avatar": "th_jax.types",
    "EpisodeBatch": "th_jax.types",
    "LoadedAvatar": "th_jax.avatars",
    "LossWeights": "th_jax.losses",
    "MetaModel": "th_jax.pretrained",
    "MetaWeights": "th_jax.types",
    "NetworkState": "th_jax.types",
    "Networks": "th_jax.models.networks",
    "Shots": "th_jax.types",
    "draw_landmarks": "th_jax.landmarks",
    "finetune_many": "th_jax.training.finetune_many",
    "finetune_settings": "th_jax.training.finetune_presets",
    "load_avatar": "th_jax.avatars",
    "load_meta": "th_jax.pretrained",
    "load_perceptual": "th_jax.perceptual.weights",
    "load_pretrained": "th_jax.pretrained",
    "loss_preset": "th_jax.losses",
    "make_finetune": "th_jax.training.finetune_person",
    "render": "th_jax.rendering.render",
    "render_stream": "th_jax.rendering.render",
    "save_avatar": "th_jax.avatars",
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
