"""What leaves: frames of a driven avatar to a film, a GIF or a still, with record and marks, or a note on their absence."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from th_jax.avatars import LoadedAvatar
from th_jax.consent import with_consent
from th_jax.media import Kind, Provenance, Role, Signer, find_ingredients, write_gif, write_image, write_video
from th_jax.media.archive_trial import usable_ingredients
from th_jax.media.provenance import now
from th_jax.rendering.layout import Panel
from th_jax.watermark.messages import Marking

LOG_SUFFIX = ".log.jsonl"
"""Of the file beside an avatar's that says what was made of it without marks."""


def record_of_driving(
    loaded: LoadedAvatar, driver: Path, *, layout: tuple[Panel, ...], marking: Marking | None
) -> Provenance:
    """What made these pictures: the avatar with its weights, shots and consent, and the driver with its own manifests.

    The avatar's archives of manifests are tried here, once for a driving (`usable_ingredients`).

    Raises:
        AvatarError: if the avatar does not say what it was made of.
        OSError: if the driver cannot be read.
        ImportError: without the extra `video`.
    """
    with driver.open("rb") as file:
        driven = f"driven by a file of SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    record = loaded.provenance
    if record.consent is None:
        record = with_consent(record, None)
    kept = sum(len(one.archive or b"") for one in record.ingredients)
    return dataclasses.replace(
        record,
        kind=Kind.GENERATED if layout == ("avatar",) else Kind.COMPOSITE,
        notes="; ".join(filter(None, [record.notes, driven])),
        ingredients=usable_ingredients((*record.ingredients, *find_ingredients([driver], role=Role.DRIVER, kept=kept))),
        watermark=marking.message if marking is not None and "avatar" in layout else None,
    )


def write_frames(
    out: Path,
    frames: Iterator[UInt8[np.ndarray, "H W 3"]],
    *,
    fps: Fraction,
    provenance: Provenance,
    audio_from: Path | None = None,
    signer: Signer | None = None,
    unmarked_for_research: bool = False,
) -> None:
    """Write a film, a GIF or a still (the first frame), by the ending of the name.

    Raises:
        ValueError, MediaError, OSError: as `th_jax.media` does; nothing is left behind.
    """
    if out.suffix.lower() == ".mp4":
        write_video(
            out,
            frames,
            fps=fps,
            provenance=provenance,
            audio_from=audio_from,
            signer=signer,
            unmarked_for_research=unmarked_for_research,
        )
    elif out.suffix.lower() == ".gif":
        write_gif(
            out, frames, fps=fps, provenance=provenance, signer=signer, unmarked_for_research=unmarked_for_research
        )
    else:
        write_image(
            out, next(frames), provenance=provenance, signer=signer, unmarked_for_research=unmarked_for_research
        )


def unmarked_log(avatar: str | Path) -> Path:
    """Where it is noted that something was made of an avatar without marks: beside its file."""
    avatar = Path(avatar)
    return avatar.with_name(avatar.name + LOG_SUFFIX)


def note_unmarked(log: Path, out: Path, *, avatar: str) -> None:
    """Append a line: that `out` is written of the avatar of this digest, when, and that its marks are left out.

    It is called before the work, so that no such file is without its line; a line may be without its file.

    Raises:
        OSError: if the disk refuses.
    """
    line = {"time": now(), "file": out.name, "avatar": avatar, "event": "is written without marks, for research"}
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
