"""NamedTuples of arrays in the package's public interfaces, which can be stacked, sharded and vmapped.

Letters of dimensions: B episodes · K source frames · T shots · I identities · S steps or frames of a sequence · H W pixels ·
P landmarks (68, or 70 with pupils) · N width of the identity embedding · A AdaIN parameters · V training videos (padded) ·
C channels.

Names, provenance and settings are not part of them, because they would recompile every program for every person.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float, Int, UInt8

AnyArray = Array | np.ndarray
Params = Mapping[str, Any]
"""A tree of float32 arrays, addressed by the names of Flax modules."""


class EpisodeBatch(NamedTuple):
    """One meta-learning episode for each of B videos (paper, section 3.2). Landmarks in [0, 1], NaN where unknown."""

    source_frames: UInt8[AnyArray, "B K H W 3"]
    source_landmarks: Float[AnyArray, "B K P 2"]
    target_frame: UInt8[AnyArray, "B H W 3"]
    target_landmarks: Float[AnyArray, "B P 2"]
    video_index: Int[AnyArray, " B"]


class Shots(NamedTuple):
    """The T images of one new person (paper, section 3.3); `mask` is 0 for padding."""

    frames: UInt8[AnyArray, "T H W 3"]
    landmarks: Float[AnyArray, "T P 2"]
    mask: Float[AnyArray, " T"]


class NetworkState(NamedTuple):
    """Parameters of one network or a group of networks, with the u and v of their spectral norms."""

    params: Params
    spectral_stats: Params


class MetaWeights(NamedTuple):
    """Meta-learned weights that new people need: all four networks, without the table of training videos."""

    synthesis: NetworkState
    """Groups "embedder", "projection" and "generator" (E, P and G)."""
    discriminator: NetworkState
    """The discriminator with its shared vector w0 and its bias b."""


class Avatar(NamedTuple):
    """One person's generator: its parameters and its own AdaIN parameters (paper, section 3.3)."""

    generator_params: Params
    adain: Float[AnyArray, " A"]
    spectral_stats: Params
