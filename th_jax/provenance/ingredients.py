"""C2PA manifests of input files: read from shots and drivers, and kept in what is generated from them.

A manifest states where a photo or video comes from, and would be lost because only the pixels are used. It is therefore
stored in the avatar, and becomes an ingredient of the manifests of the avatar's videos.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from th_jax.media.isolation import ProcessLimits, run_limited
from th_jax.media.limits import DEFAULT_LIMITS, MediaError, check_file
from th_jax.provenance.c2pa_write import MEDIA_TYPES, c2pa, check_signing, offline_context
from th_jax.provenance.record import MAX_ARCHIVES, MAX_INGREDIENTS, Ingredient, Kind, Provenance, Role
from th_jax.provenance.signing import SigningError, throwaway_signer


def usable_ingredients(ingredients: Sequence[Ingredient]) -> tuple[Ingredient, ...]:
    """Drop the archives of ingredients that cannot be signed into a manifest; their digests are kept.

    The archives of an avatar are untrusted. If the process that checks them fails, none are kept. Without archives,
    nothing is done.

    Raises:
        RuntimeError: if no process can be started.
        ImportError: if the extra `video` is not installed.
    """
    holding = [number for number, one in enumerate(ingredients) if one.archive is not None]
    if not holding:
        return tuple(ingredients)
    try:
        archives = [np.frombuffer(ingredients[number].archive or b"", np.uint8) for number in holding]
        indices = set(run_limited(rejected_archives, archives, within=SEARCH_LIMITS))
    except (MediaError, OSError, ValueError, TypeError):
        indices = set(range(len(holding)))
    refused = {number for index, number in enumerate(holding) if index in indices}
    return tuple(
        dataclasses.replace(one, archive=None) if number in refused else one for number, one in enumerate(ingredients)
    )


def rejected_archives(archives: Sequence[bytes | UInt8[np.ndarray, " bytes"]]) -> list[int]:
    """Return the indices of archives that cannot be signed, alone or together with those before them; runs in a sandbox.

    Raises:
        ImportError: if the extra `video` is not installed.
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


SEARCH_LIMITS = ProcessLimits(memory=4 * 2**30, cpu_seconds=300.0, seconds=600.0)
"""Limits of the search for one file's manifest."""


def find_ingredients(files: Iterable[str | Path], *, role: Role, kept: int = 0) -> tuple[Ingredient, ...]:
    """Return the files that carry C2PA manifests, identical files once, each with its manifests while there is room.

    Each file is read in an isolated process with limits. Invalid manifests are not an error: their failed checks are
    kept with them. Files whose manifests cannot be read at all are left out.

    Args:
        files: shots or driver.
        role: role of the files.
        kept: bytes of archives that the record already contains (`MAX_ARCHIVES`).

    Raises:
        ImportError: if the extra `video` is not installed.
        RuntimeError: if no process can be started.
    """
    c2pa()
    found: list[Ingredient] = []
    for file in files:
        try:
            answer = run_limited(find_manifests, str(file), role.value, within=SEARCH_LIMITS)
        except (MediaError, OSError, ValueError):
            continue
        if answer is None or len(found) >= MAX_INGREDIENTS - 1:
            continue
        digest, content = answer
        if any(one.file == digest for one in found):
            continue
        room = kept + len(content) <= MAX_ARCHIVES
        kept += len(content) * room
        found.append(Ingredient(role=role, file=digest, archive=content.tobytes() if room else None))
    return tuple(found)


def find_manifests(path: str, role: str) -> tuple[str, np.ndarray] | None:
    """Return a file's SHA-256 digest and an archive of its manifests as UInt8 `[bytes]`, or None; runs in a sandbox.

    Raises:
        MediaError: if the path is not a regular file within the limits.
        ValueError: if its manifests cannot be read or signed.
        OSError: if the file cannot be read.
    """

    checked = check_file(path, DEFAULT_LIMITS)
    library, archive = c2pa(), io.BytesIO()
    media_type = MEDIA_TYPES.get(checked.suffix.lower())
    try:
        with checked.open("rb") as file, offline_context() as context:
            reader = library.Reader.try_create(media_type, file, None, context)
            if reader is None:
                return None
            reader.close()
            file.seek(0)
            with library.Builder({}, context) as builder:
                builder.add_ingredient(
                    {"title": role, "relationship": "inputTo", "label": role}, media_type or checked.suffix[1:], file
                )
                builder.write_ingredient_archive(role, archive)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except library.C2paError as error:
        raise ValueError(f"cannot read the manifests of {path}: {error}") from error
    small = archive.tell() <= MAX_ARCHIVES  # larger ones are not kept
    if small and rejected_archives([archive.getvalue()]):
        raise ValueError(f"the manifests of {path} cannot be included in another manifest")
    return digest, np.frombuffer(archive.getvalue(), np.uint8)
