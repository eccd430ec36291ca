"""One person from start to end: `finetune = make_finetune(networks)`, then `finetune(weights, perceptual, shots)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from th_jax.losses import LossWeights, loss_preset
from th_jax.models.networks import Networks
from th_jax.perceptual.weights import PerceptualWeights
from th_jax.training.finetune import (
    PADDED_SHOTS,
    FinetuneState,
    avatar_of,
    make_finetune_chunk,
    start_finetune,
    steps_of,
)
from th_jax.training.optimizers import Optimizers
from th_jax.types import Avatar, MetaWeights, Shots

CHUNK_STEPS = 10
"""Steps of one jitted chunk: a fifth of the paper's shortest fine-tuning between two looks at it."""

FinetuneMetrics = dict[str, Float[np.ndarray, " S"]]
Watcher = Callable[[FinetuneState, FinetuneMetrics], bool]
"""Called between chunks with the state and the metrics of the chunk; True stops."""


def default_losses(perceptual: PerceptualWeights) -> LossWeights:
    """The published weights that fit the frozen networks at hand: "iccv" for VGG19 and VGGFace, else "embedded".

    Raises:
        ValueError: if there is no set for them.
    """
    for preset in ("iccv", "embedded"):
        weights = loss_preset(preset)
        if set(weights.content) == set(perceptual):
            return weights
    raise ValueError(
        f"no published loss weights are for the frozen networks {', '.join(sorted(perceptual)) or '(none)'}: "
        "give loss_weights yourself"
    )


def fit_shots(networks: Networks, shots: Shots) -> Shots:
    """Shots in the networks' size, padded to 1, 8 or 32 with mask 0.

    Raises:
        ValueError: if there are none, more than 32, or none of them is real.
    """
    frames, landmarks, mask = (np.asarray(leaf) for leaf in shots)
    count = len(frames)
    if not 1 <= count <= PADDED_SHOTS[-1] or not mask.any():
        raise ValueError(
            f"fine-tuning takes 1 to {PADDED_SHOTS[-1]} shots, but {int(mask.sum())} real ones of {count} came"
        )
    size = networks.image_size
    if frames.shape[1:3] != (size, size):
        resized = jax.image.resize(frames.astype(np.float32), (count, size, size, 3), method="linear", antialias=True)
        frames = np.asarray(jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8))
    total = next(padded for padded in PADDED_SHOTS if padded >= count)
    repeated = np.arange(total) % count
    real = np.where(np.arange(total) < count, mask[repeated], 0.0).astype(np.float32)
    return Shots(frames[repeated], landmarks[repeated].astype(np.float32), real)


def make_finetune(
    networks: Networks,
    *,
    epochs: int = 40,
    loss_weights: LossWeights | None = None,
    optimizers: Optimizers | None = None,
    adversary: float = 1.0,
    chunk_steps: int = CHUNK_STEPS,
    watch: Watcher | None = None,
) -> Callable[..., tuple[Avatar, FinetuneMetrics]]:
    """Fine-tuning as a function (weights, perceptual, shots, key=…) -> (avatar, metrics of every step).

    It compiles once for each padded number of shots, 1, 8 or 32, whoever the person is.

    Args:
        networks: of the meta weights.
        epochs: the paper preset's 40.
        loss_weights: by default the published ones for the frozen networks that are given.
        optimizers: by default meta-learning's rates (paper, section 4).
        adversary: factor of the score and of feature matching; the one that meta-learning ended with.
        chunk_steps: steps between two looks.
        watch: called between chunks; stops when it gives True.

    Raises:
        ValueError: for settings or shots that fit no fine-tuning.
    """
    optimizers = optimizers or Optimizers()
    steps_of(1, epochs=epochs)
    compiled: dict[str, Any] = {}  # by the losses, which the frozen networks may decide

    # Jitted so that its leaves are copies: the chunks give their memory away, and the meta weights must stay.
    @jax.jit
    def start(weights: MetaWeights, shots: Shots, key: PRNGKeyArray) -> FinetuneState:
        return start_finetune(networks, weights, shots, optimizers=optimizers, key=key)

    def finetune(
        weights: MetaWeights, perceptual: PerceptualWeights, shots: Shots, *, key: PRNGKeyArray | None = None
    ) -> tuple[Avatar, FinetuneMetrics]:
        shots = fit_shots(networks, shots)
        losses = loss_weights or default_losses(perceptual)
        kind = repr(losses)
        if kind not in compiled:
            chunk = make_finetune_chunk(networks, losses, optimizers, steps=chunk_steps, adversary=adversary)
            compiled[kind] = jax.jit(chunk, donate_argnums=0)
        end = jnp.int32(steps_of(int(shots.mask.sum()), epochs=epochs))
        state = start(weights, shots, key if key is not None else jax.random.key(0))
        history: list[FinetuneMetrics] = []
        for first in range(0, int(end), chunk_steps):
            state, metrics = compiled[kind](state, perceptual, shots, end)
            done = min(chunk_steps, int(end) - first)
            history.append({name: np.asarray(values)[:done] for name, values in metrics.items()})
            if watch is not None and watch(state, history[-1]):
                break
        return avatar_of(state), {name: np.concatenate([part[name] for part in history]) for name in history[0]}

    return finetune
