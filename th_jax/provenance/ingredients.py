"""C2PA manifests of input files: read from shots and drivers, and kept in what is generated from them.

A manifest states where a photo or video comes from, and would be lost because only the pixels are used. It is therefore
stored in the avatar, and becomes an ingredient of the manifests of the avatar's videos.
"""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from th_jax.media.isolation import ProcessLimits, run_limited
from th_jax.media.limits import DEFAULT_LIMITS, MediaError, check_file
from th_jax.provenance.c2pa_write import MEDIA_TYPES, c2pa, check_signing, offline_context
from th_jax.provenance.record import MAX_ARCHIVES, MAX_INGREDIENTS, Ingredient, Kind, Provenance, Role
from th_jax.provenance.signing import SigningError, throwaway_signer
from th_jax.storage.files import file_sha256


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


class IngredientSearch:
    """Collects the files that carry C2PA manifests, identical files once, each with its manifests while there is room.

    Each file is read in an isolated process with limits. Invalid manifests are not an error: their failed checks are
    kept with them. Files whose manifests cannot be read at all are left out.
    """

    def __init__(self, role: Role, *, kept: int = 0) -> None:
        """Start without files.

        `kept` is the size of the archives that the record already contains (`MAX_ARCHIVES`).

        Raises:
            ImportError: if the extra `video` is not installed.
        """
        c2pa()
        self._role, self._kept = role, kept
        self.found: list[Ingredient] = []

    def look(self, file: str | Path, *, content: UInt8[np.ndarray, " bytes"] | None = None) -> str | None:
        """Search a file, and return its SHA-256 digest; None if the process that read it failed.

        `content` are the file's bytes, if they have been read already.

        Raises:
            RuntimeError: if no process can be started.
        """
        try:
            answer = run_limited(find_manifests, str(file), self._role.value, content=content, within=SEARCH_LIMITS)
        except (MediaError, OSError, ValueError):
            return None
        digest, archive = str(answer[0]), answer[1]
        known = any(one.file == digest for one in self.found)
        if archive is not None and not known and len(self.found) < MAX_INGREDIENTS - 1:
            room = self._kept + len(archive) <= MAX_ARCHIVES
            self._kept += len(archive) * room
            self.found.append(Ingredient(role=self._role, file=digest, archive=archive.tobytes() if room else None))
        return digest


def find_manifests(
    path: str, role: str, *, content: UInt8[np.ndarray, " bytes"] | None = None
) -> tuple[str, UInt8[np.ndarray, " archive"] | None]:
    """Return a file's SHA-256 digest, and an archive of its usable manifests, if it has any; runs in a sandbox.

    Raises:
        MediaError: if the path is not a regular file within the limits.
        OSError: if the file cannot be read.
    """
    with io.BytesIO(content.data) if content is not None else check_file(path, DEFAULT_LIMITS).open("rb") as file:
        archive = _archive(file, Path(path).suffix.lower(), role)
        return file_sha256(file), archive


def _archive(file: io.BufferedIOBase, suffix: str, role: str) -> np.ndarray | None:
    library, archive, media_type = c2pa(), io.BytesIO(), MEDIA_TYPES.get(suffix)
    try:
        with offline_context() as context:
            reader = library.Reader.try_create(media_type, file, None, context)
            if reader is None:
                return None
            reader.close()
            file.seek(0)
            with library.Builder({}, context) as builder:
                entry = {"title": role, "relationship": "inputTo", "label": role}
                builder.add_ingredient(entry, media_type or suffix[1:], file)
                builder.write_ingredient_archive(role, archive)
    except library.C2paError:
        return None
    small = archive.tell() <= MAX_ARCHIVES  # larger ones are not kept
    if small and rejected_archives([archive.getvalue()]):
        return None
    return np.frombuffer(archive.getvalue(), np.uint8)
