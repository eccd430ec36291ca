"""Writes the frames of a driven avatar as a video, GIF or still with marks and provenance, and logs unmarked outputs."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from th_jax.avatars.file import LoadedAvatar
from th_jax.consent import with_consent
from th_jax.driving.panels import Panel
from th_jax.driving.same_person import Choice
from th_jax.provenance import Kind, Provenance, Role, Signer, write_gif, write_image, write_video
from th_jax.provenance.ingredients import IngredientSearch, usable_ingredients
from th_jax.provenance.record import now
from th_jax.provenance.watermark.messages import Marking
from th_jax.storage.files import file_sha256
from th_jax.storage.json_lines import append_line, json_line

LOG_SUFFIX = ".log.jsonl"
"""Suffix of the log beside an avatar file that lists outputs written without marks."""


def record_of_driving(
    loaded: LoadedAvatar,
    driver: Path,
    *,
    layout: tuple[Panel, ...],
    marking: Marking | None,
    retargeting: Choice,
    pasted: bool = False,
) -> Provenance:
    """Build the provenance record of driven frames.

    It covers the avatar with its weights, shots and consent, the driver's own manifests, and the retargeting. The
    avatar's archived manifests are validated here, once per driving (`usable_ingredients`). `pasted` means that the avatar's
    face is put into the driver's frames.

    Raises:
        AvatarError: if the avatar has no valid provenance record.
        OSError: if the driver cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    record = loaded.provenance
    if record.consent is None:
        record = with_consent(record, None)
    search = IngredientSearch(Role.DRIVER, kept=sum(len(one.archive or b"") for one in record.ingredients))
    digest = search.look(driver) or file_sha256(driver)
    notes = [record.notes, f"driven by a file of SHA-256 {digest}", str(retargeting)]
    notes += ["the face is put back into the driver's frames"] if pasted else []
    return dataclasses.replace(
        record,
        kind=Kind.GENERATED if layout == ("avatar",) and not pasted else Kind.COMPOSITE,
        notes="; ".join(filter(None, notes)),
        ingredients=usable_ingredients((*record.ingredients, *search.found)),
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
    """Write a video, a GIF, or the first frame as a still, depending on the suffix.

    Raises:
        ValueError, MediaError, OSError: as the writers of `th_jax.provenance`; no partial file is left behind.
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
    """Return the path of the log of unmarked outputs, beside the avatar file."""
    avatar = Path(avatar)
    return avatar.with_name(avatar.name + LOG_SUFFIX)


def note_unmarked(log: Path, out: Path, *, avatar: str) -> None:
    """Append a line saying that `out` is written without marks from the avatar with this digest, and when.

    Called before the work, so that no unmarked file exists without its line; a line may exist without its file.

    Raises:
        OSError: if the log cannot be written.
    """
    line = {"time": now(), "file": out.name, "avatar": avatar, "event": "was written without marks, for research"}
    append_line(log, json_line(line))
