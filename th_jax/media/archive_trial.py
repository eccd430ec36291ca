"""Tries in a process of its own whether ingredients' manifests can be signed into another: strangers may have made them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from th_jax.media.ingredients import SEARCH_LIMITS, Ingredient, Role
from th_jax.media.limits import MediaError
from th_jax.media.manifest import check_signing
from th_jax.media.provenance import Kind, Provenance
from th_jax.media.sandbox import run_limited
from th_jax.media.signing import SigningError, throwaway_signer


def usable_ingredients(ingredients: Sequence[Ingredient]) -> tuple[Ingredient, ...]:
    """The ingredients, without the archives that cannot be signed into a manifest; their digests stay.

    An avatar brings archives along, whoever made it. If their process comes to a bad end, none of them is kept. Without
    archives nothing is done.

    Raises:
        RuntimeError: if no process can be started.
        ImportError: without the extra `video`.
    """
    holding = [number for number, one in enumerate(ingredients) if one.archive is not None]
    if not holding:
        return tuple(ingredients)
    try:
        archives = [np.frombuffer(ingredients[number].archive or b"", np.uint8) for number in holding]
        indices = set(run_limited(refused_archives, archives, within=SEARCH_LIMITS))
    except (MediaError, OSError, ValueError, TypeError):
        indices = set(range(len(holding)))
    refused = {number for index, number in enumerate(holding) if index in indices}
    return tuple(
        dataclasses.replace(one, archive=None) if number in refused else one for number, one in enumerate(ingredients)
    )


def refused_archives(archives: Sequence[bytes | UInt8[np.ndarray, " bytes"]]) -> list[int]:
    """Indices of the archives with which nothing can be signed, alone or together with those before: runs in a sandbox.

    Raises:
        ImportError: without the extra `video`.
    """
    signer, every = throwaway_signer(), list(range(len(archives)))

    def fail(chosen: list[int]) -> bool:
        ingredients = tuple(Ingredient(role=Role.SHOT, file=f"{n:064x}", archive=bytes(archives[n])) for n in chosen)
        try:
            check_signing(Provenance(kind=Kind.GENERATED, ingredients=ingredients), signer)
        except SigningError:
            return True
        return False

    if not fail(every):
        return []
    kept: list[int] = []
    for number in every:
        if not fail([*kept, number]):
            kept.append(number)
    return [number for number in every if number not in kept]
