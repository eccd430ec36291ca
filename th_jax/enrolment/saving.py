"""What fine-tuning leaves in its folder, and who has an avatar there already: of the same pictures and settings, or none."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.avatar_format import FORMAT, AvatarError, read_tensors
from th_jax.consent import consent_digest, read_consent
from th_jax.consent_checks import ConsentError, file_digest, picture_files
from th_jax.data.shots import SHOT_COUNTS
from th_jax.enrolment.report import Outcome, Report, read_report
from th_jax.enrolment.requests import PersonRequest
from th_jax.media import Signer
from th_jax.pretrained import MetaModel
from th_jax.quantization import Bits
from th_jax.tensor_file import OtherFormatError, TensorFileError, read_description

MADE_FROM = "made_from"
"""The field of an avatar's description that holds what `made_from` gives."""

_ANEW = "remove it, or choose another folder"


class EnrolmentError(ValueError):
    """Nothing can be begun: the message says why and what to do."""


class Saving(NamedTuple):
    """What is written for each person."""

    folder: Path
    compact: Bits | None = None
    preview: bool = False
    notes: Mapping[str, Any] = {}
    """JSON values that go into every avatar."""
    signer: Signer | None = None
    """Signs the previews' manifests; `load_signer` chooses by default."""

    def avatar(self, name: str) -> Path:
        """Where the person's avatar is."""
        return self.folder / f"{name}.safetensors"


def request_digest(meta: MetaModel, settings: Mapping[str, Any]) -> str:
    """What an avatar was asked for: the meta weights and the settings, as one SHA-256."""
    text = json.dumps({"meta": meta.digest, "settings": settings}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def made_from(person: PersonRequest, saving: Saving, *, max_shots: int | None) -> dict[str, Any]:
    """What an avatar depends on beside `request_digest`, as JSON values: so that nobody's is taken for somebody else's.

    Files count by their bytes, whatever they are called. One that cannot be read counts by its name, because it is left out.
    """
    try:
        files = picture_files(person.shots)
    except OSError:  # whoever reads the shots says why
        files = [person.shots]
    return {
        "pictures": hashlib.sha256("\n".join(sorted(map(_bytes_or_name, files))).encode()).hexdigest(),
        "landmarks": None if person.landmarks is None else _bytes_or_name(person.landmarks),
        "max_shots": SHOT_COUNTS[-1] if max_shots is None else max_shots,
        "compact": saving.compact,
    }


def unfinished(
    people: Sequence[PersonRequest], saving: Saving, *, max_shots: int | None = None, report: Report | None = None
) -> list[PersonRequest]:
    """Those whose avatar is not there yet, or is a file that a crash or a full disk left in pieces.

    Args:
        people: who is asked for; the pictures of those who have an avatar are read through and compared with its own.
        saving: where avatars are, and how they would be made now.
        max_shots: pictures of a person that would be used at most.
        report: gets the line of those who have an avatar, but whose latest line does not say so: a run was killed between.

    Raises:
        EnrolmentError: if there is an avatar of other meta weights, settings, consent or pictures, or another kind of file.
        ConsentError: if the consent record of one that is there cannot be read.
        OSError: if the disk refuses.
    """
    known = {} if report is None else read_report(saving.folder, missing_ok=True)
    left = []
    for person in people:
        path = saving.avatar(person.name)
        made = _description(path)
        if made is None:
            left.append(person)
            continue
        _check_same(path, made, person, saving, max_shots)
        if report is not None and (person.name not in known or known[person.name].status != "finished"):
            outcome = _outcome(person.name, path)
            if outcome is None:
                left.append(person)
            else:
                report.enter(outcome)
    return left


def _description(path: Path) -> dict[str, Any] | None:
    try:
        return read_description(path, file_format=FORMAT) if path.exists() else None
    except OtherFormatError as error:
        raise EnrolmentError(f"{error}; {_ANEW}") from error
    except TensorFileError:
        return None


def _check_same(
    path: Path, made: Mapping[str, Any], person: PersonRequest, saving: Saving, max_shots: int | None
) -> None:
    """Refuse what was made otherwise than it would be made now."""
    if made.get("request") != saving.notes.get("request"):
        raise EnrolmentError(f"{path} was made with other meta weights or settings: {_ANEW}")
    if consent_digest(made) != (None if person.consent is None else read_consent(person.consent).digest):
        raise EnrolmentError(f"{path} was made with another consent record, or with none: {_ANEW}")
    before, now = made.get(MADE_FROM), made_from(person, saving, max_shots=max_shots)
    before = before if isinstance(before, Mapping) else {}
    if any(before.get(name) != now[name] for name in ("pictures", "landmarks")):
        raise EnrolmentError(
            f"{path} was made from other pictures than those at {person.shots}: {_ANEW}, or give another name"
        )
    if before != now:
        raise EnrolmentError(f"{path} was made with another --max_shots or --compact: {_ANEW}")


def _outcome(name: str, path: Path) -> Outcome | None:
    """What the report would say of an avatar; None if the file is not as it was written."""
    try:
        _, made, digest = read_tensors(path)
        shots, steps, best_of = (int(made[key]) for key in ("shots", "steps", "best_of"))
    except (AvatarError, KeyError, TypeError, ValueError):
        return None
    return Outcome(name, "finished", shots=shots, avatar=str(path), steps=steps, best_of=best_of, digest=digest)


def _bytes_or_name(file: Path) -> str:
    try:
        return file_digest(file)
    except ConsentError:
        return f"unreadable: {file.name}"
