"""Meta-learning and fine-tuning: pure steps over named tuples of arrays, and the code that runs them.

`make_meta_train_step` and `make_finetune_chunk` return the steps themselves, for use inside a caller's own `jit`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from th_jax.training.finetune import make_finetune_chunk as make_finetune_chunk
    from th_jax.training.meta_step import make_meta_train_step as make_meta_train_step

_HOMES = {"make_finetune_chunk": "finetune", "make_meta_train_step": "meta_step"}

__all__ = ["make_finetune_chunk", "make_meta_train_step"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562): logs and settings checks do not need the networks."""
    if name not in _HOMES:
        raise AttributeError(f"module 'th_jax.training' has no attribute {name!r}")
    return getattr(import_module(f"th_jax.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return sorted(__all__)
