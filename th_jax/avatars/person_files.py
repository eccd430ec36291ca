"""Reads one person's files: each photo is opened once for its digest, the check of consent, its pixels and its manifests."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.consent import ConsentRecord
from th_jax.consent.checks import ConsentError, check_covered, file_digest, image_files, shot_files
from th_jax.data.shot_selection import Crop, Look, Verdict
from th_jax.data.shots import ImageOutcomes, LeftOut, is_video, look_at_photo, shots_and_outcomes
from th_jax.media.isolation import run_limited
from th_jax.media.read import read_image_file
from th_jax.provenance import Ingredient, Role
from th_jax.provenance.ingredients import IngredientSearch
from th_jax.types import Shots


class PersonFiles(NamedTuple):
    """What was read of one person's files."""

    shots: Shots
    images: ImageOutcomes
    digests: Mapping[Path, str]
    """SHA-256 digest of each photo, or of the video, that was read."""
    ingredients: tuple[Ingredient, ...] = ()
    """The files that carry C2PA manifests."""


def read_shots(
    path: Path,
    *,
    size: int,
    shots: int | None = None,
    landmarks: Path | None = None,
    face: int | None = None,
    consent: ConsentRecord | None = None,
    pupils: bool = False,
) -> PersonFiles:
    """Read a person's shots in isolated processes, so that a malicious or broken image cannot end the run.

    A file that the consent record does not cover is not decoded. `landmarks` is a file of hand-marked landmarks for a
    single photo, `face` the number of the face in a photo or video of several people; `pupils` finds the pupils, too.

    Raises:
        ValueError, MediaError, ImportError, OSError: as `inspect_shots`, or if a process limit was exceeded.
        ConsentError: if the record does not cover all files.
    """
    search = IngredientSearch(Role.SHOT)
    digests: dict[Path, str] = {}

    def check_consent() -> None:
        if consent is not None:
            check_covered(consent, {file: digests.get(file) or file_digest(file) for file in shot_files(path)}, path)

    def look(photo: Path, **options: Any) -> Look:
        content = read_image_file(photo)
        digests[photo] = hashlib.sha256(content.data).hexdigest()
        if consent is not None and digests[photo] not in consent.shots:
            check_consent()
        search.look(photo, content=content)
        verdict, detail, points, crop = run_limited(look_at_photo, str(photo), content=content, **options)
        return Look(Verdict(verdict), detail, points, crop and Crop(*crop))

    chosen: dict[str, Any] = {
        "size": size,
        "shots": shots,
        "landmarks": landmarks and str(landmarks),
        "face": face,
        "pupils": pupils,
    }
    if is_video(path):
        digests[path] = search.look(path) or file_digest(path)
        check_consent()
        read, images = run_limited(shots_and_outcomes, str(path), **chosen)
    else:
        read, images = shots_and_outcomes(path, **chosen, look=look)
        check_consent()
    looked_at, spare, left_out = images
    outcomes = ImageOutcomes(looked_at, spare, tuple(LeftOut(*left) for left in left_out))
    return PersonFiles(Shots(*read), outcomes, digests, tuple(search.found))


def person_digest(path: Path, known: Mapping[Path, str]) -> str:
    """Compute a digest of all of a person's files, whatever their names; an unreadable one is identified by its name.

    `known` has digests of files that have been read already.
    """
    try:
        files = image_files(path)
    except OSError:  # reading the shots will report the reason
        files = [path]
    digests = sorted(known.get(file) or bytes_or_name(file) for file in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def bytes_or_name(file: Path) -> str:
    """Return a file's SHA-256 digest, or its name if it cannot be read."""
    try:
        return file_digest(file)
    except ConsentError:
        return f"unreadable: {file.name}"
