"""The C2PA manifests of the files that pictures are made from: found in shots and drivers, kept in what is made.

A manifest says where a photo or film comes from. It would be lost where only its pixels are used; so it is stored in the
avatar, and becomes an ingredient of the manifests of the avatar's films.
"""

import base64
import dataclasses
import enum
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from th_jax.media.confinement import ProcessLimits
from th_jax.media.content_credentials import MEDIA_TYPES, c2pa, offline_context
from th_jax.media.limits import DEFAULT_LIMITS, MediaError, check_file

MAX_INGREDIENTS = 256

MAX_ARCHIVES = 16 * 2**20
"""Bytes of the archives of all ingredients together."""

SEARCH_LIMITS = ProcessLimits(memory=4 * 2**30, cpu_seconds=300.0, seconds=600.0)
"""On looking for the manifest of one file."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Role(enum.StrEnum):
    """What a file was for."""

    SHOT = "shot"
    """A picture of the person."""
    DRIVER = "driver"
    """A film whose motion, and perhaps sound, was used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A file with C2PA manifests of its own, from which pictures were made.

    Raises:
        ValueError: for an unknown role or a malformed digest.
    """

    role: Role
    file: str
    """SHA-256 of the file's bytes."""
    archive: bytes | None = None
    """Its manifests, as c2pa's archive of one ingredient; None where they are too large or of no use (`usable_ingredients`),
    and beside a file that holds them."""

    def __post_init__(self) -> None:
        """Check what a caller may have got wrong."""
        object.__setattr__(self, "role", Role(self.role))
        check_digests(self.file)

    def to_dict(self) -> dict[str, Any]:
        """The ingredient as plain JSON values."""
        archive = None if self.archive is None else base64.b64encode(self.archive).decode()
        return {"role": self.role.value, "file": self.file, "archive": archive}

    @classmethod
    def from_dict(cls, record: Any) -> "Ingredient":
        """The ingredient that `to_dict` wrote.

        Raises:
            ValueError: for missing, unknown or malformed fields.
        """
        match record:
            case {"role": str(role), "file": str(file), "archive": None | str() as archive} if len(record) == 3:
                content = None if archive is None else base64.b64decode(archive, validate=True)
                return cls(role=Role(role), file=file, archive=content)
        raise ValueError("provenance: an ingredient is malformed")


def check_digests(*digests: Any) -> None:
    """Refuse what is neither None nor a SHA-256 in hexadecimal.

    Raises:
        ValueError: naming what came.
    """
    for digest in digests:
        if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            raise ValueError(f"provenance: a digest must be 64 hexadecimal digits, but is {digest!r}")


def check_ingredients(ingredients: Sequence[Ingredient]) -> None:
    """Refuse more than a file should carry.

    Raises:
        ValueError: naming number and size.
    """
    size = sum(len(one.archive or b"") for one in ingredients)
    if len(ingredients) > MAX_INGREDIENTS or size > MAX_ARCHIVES:
        raise ValueError(
            f"provenance: {len(ingredients)} ingredients with {size} bytes of manifests came: at most {MAX_INGREDIENTS} with "
            f"{MAX_ARCHIVES} bytes are kept"
        )


def find_ingredients(files: Iterable[str | Path], *, role: Role, kept: int = 0) -> tuple[Ingredient, ...]:
    """Those of some files that carry C2PA manifests, equal files once, each with its manifests while there is room.

    A file is looked at in a process of its own, with limits; whatever is wrong with its manifests, it is no error here, and
    what they fail in is kept with them. A file whose manifests cannot be read at all is left out.

    Args:
        files: shots, or a driver.
        role: what they are for.
        kept: bytes of archives that the record holds already (`MAX_ARCHIVES`).

    Raises:
        ImportError: without the extra `video`.
        RuntimeError: if no process can be started.
    """
    from th_jax.media.sandbox import run_limited  # here: who only reads records starts no processes

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
    """A file's SHA-256 and the archive of its manifests as UInt8 `[bytes]`, or None if it has none: runs in a sandbox.

    Raises:
        MediaError: if it is no file that may be read.
        ValueError: if its manifests cannot be read, or nothing can be signed with them.
        OSError: if the file cannot.
    """
    from th_jax.media.archive_trial import refused_archives  # here: it needs what ingredients are

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
        raise ValueError(f"the manifests of {path} cannot be read: {error}") from error
    small = archive.tell() <= MAX_ARCHIVES  # larger ones are not kept
    if small and refused_archives([archive.getvalue()]):
        raise ValueError(f"the manifests of {path} cannot become part of another")
    return digest, np.frombuffer(archive.getvalue(), np.uint8)
