"""Puts a watermark into generated pixels that have none yet: the door's own, for who did not mark them while generating."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from th_jax.media.provenance import Kind, Provenance

Frames = Iterator[UInt8[np.ndarray, "H W 3"]]


def with_watermark(
    frames: Frames, provenance: Provenance, *, kind: Literal["still", "film"], unmarked_for_research: bool = False
) -> tuple[Frames, Provenance]:
    """The frames with a mark in the square in their middle, and the record with its message.

    Of generated pictures alone: where others stand beside them, only who puts them together knows where they are. Its message
    is the avatar's digest, or else that of everything else that made them. Smaller frames than 64 px have no room for one.

    Args:
        frames: of one size; the first one is asked for.
        provenance: what made them; a record that names a message is left as it is.
        kind: what is written.
        unmarked_for_research: leave everything as it is.
    """
    if unmarked_for_research or provenance.kind is not Kind.GENERATED or provenance.watermark is not None:
        return frames, provenance
    first = next(frames, None)
    if first is None:
        return frames, provenance
    from th_jax.watermark.messages import mark_frames, marking_of  # here: it brings JAX, which no reader needs

    frames = itertools.chain([first], frames)
    marking = marking_of(_digest(provenance), size=min(first.shape[:2]), kind=kind)
    if marking is None:
        return frames, provenance
    return mark_frames(frames, marking.mark), dataclasses.replace(provenance, watermark=marking.message)


def _digest(provenance: Provenance) -> str:
    if provenance.avatar is not None:
        return provenance.avatar
    made_of = [sorted(provenance.weights.items()), provenance.inputs]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
