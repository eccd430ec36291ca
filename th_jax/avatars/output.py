"""Outputs of a fine-tuning run: report, summary, avatar paths, and the check of which people are finished."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from th_jax.avatars.file import FORMAT, AvatarError, read_tensors
from th_jax.avatars.person_files import bytes_or_name, person_digest
from th_jax.avatars.quantization import Bits
from th_jax.avatars.requests import PersonRequest
from th_jax.consent import consent_digest, read_consent
from th_jax.data.shots import SHOT_COUNTS, LeftOut
from th_jax.faces.detect import landmark_model_digest
from th_jax.provenance import Signer
from th_jax.storage.json_lines import append_line, json_line, read_lines
from th_jax.storage.setting_names import previous_names
from th_jax.storage.strict_json import from_json, parse_json
from th_jax.storage.tensors import OtherFormatError, TensorFileError, read_description
from th_jax.weights import MetaModel

REPORT_FILE = "report.jsonl"

MAX_LINE_BYTES = 2**26
"""Maximum size of a line in a report: it names every file that was left out."""

_SHOWN = 5
"""Maximum number of people of each kind that the summary names."""

_FILES_SHOWN = 20
"""Maximum number of left-out files that the summary names for each of them."""

Status = Literal["finished", "failed", "missing"]
"""Only merged reports list missing people."""


class Outcome(NamedTuple):
    """The outcome for one person."""

    name: str
    status: Status
    reason: str = ""
    """Reason of a failure."""
    shots: int = 0
    """Number of images used."""
    looked_at: int = 0
    """Number of images examined: photos, or frames of a video."""
    spare: int = 0
    """Number of usable images beyond those used."""
    left_out: tuple[LeftOut, ...] = ()
    """Files that could not be used, or were skipped because of their type, with reasons."""
    avatar: str = ""
    """Path of the avatar file."""
    steps: int = 0
    """Number of fine-tuning steps of the saved avatar."""
    best_of: int = 0
    """Number of steps tried, if early stopping selected among them."""
    digest: str = ""
    """SHA-256 digest of the avatar, in hexadecimal."""
    seconds: float = 0.0
    """Seconds since the previous person was finished, including all work."""


class Report:
    """Report file OUT/report.jsonl: `report.add(outcome)` appends a line and flushes it to disk."""

    def __init__(self, folder: Path, *, name: str = REPORT_FILE) -> None:
        """Open the report, creating its folder if necessary."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._path = folder / name
        self.outcomes: list[Outcome] = []
        """Outcomes of this run."""

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of a person processed in this run.

        Raises:
            OSError: if the report cannot be written.
        """
        self.enter(outcome)
        self.outcomes.append(outcome)

    def enter(self, outcome: Outcome) -> None:
        """Append the outcome of a person finished by an earlier run that was killed before it could report it.

        Raises:
            OSError: if the report cannot be written.
        """
        append_line(self._path, report_line(outcome))


def report_line(outcome: Outcome) -> bytes:
    """Return the line of a report, with its end."""
    return json_line(outcome._asdict() | {"left_out": [left._asdict() for left in outcome.left_out]})


def read_report(folder: Path, *, name: str = REPORT_FILE, missing_ok: bool = False) -> dict[str, Outcome]:
    """Read the latest outcome of each person, skipping incomplete lines from a killed run.

    Raises:
        FileNotFoundError: if there is no report and `missing_ok` is False.
    """
    if missing_ok and not (folder / name).exists():
        return {}
    return {outcome.name: outcome for outcome in read_lines(folder / name, _parsed)}


def summary(outcomes: Iterable[Outcome], *, skipped: int, folder: Path, report: str = REPORT_FILE) -> str:
    """Summarize a run in one paragraph: counts, failures with reasons, avatar locations, and left-out files.

    `skipped` is the number of people finished before this run.
    """
    outcomes = list(outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    parts = [f"{len(finished)} finished"]
    parts += [f"{skipped} were already finished"] if skipped else []
    parts += [f"{len(failed)} failed"] if failed else []
    lines = [", ".join(parts)] + [f"  {outcome.name}: {outcome.reason}" for outcome in failed[:_SHOWN]]
    lines += [f"  and {len(failed) - _SHOWN} more: see {report}"] if len(failed) > _SHOWN else []
    for outcome in finished[:_SHOWN]:
        lines += _made(outcome, report)
    if skipped or len(finished) > _SHOWN:
        lines.append(f"  all avatars are in {folder}; their inputs are listed in {folder / report}")
    if unnamed := sum(len(outcome.left_out) for outcome in finished[_SHOWN:]):
        lines.append(f"  {unnamed} more files were skipped: see the report")
    return "\n".join(lines)


def _made(outcome: Outcome, report: str) -> list[str]:
    """Describe one avatar: its path, the number of images, and the left-out files."""
    of = f" of {outcome.looked_at}" if outcome.looked_at else ""
    spare = f" ({outcome.spare} more were usable)" if outcome.spare else ""
    lines = [f"  {outcome.name}: {outcome.avatar}, from {outcome.shots}{of} images{spare}"]
    lines += [f"    skipped: {file}: {why}" for file, why in outcome.left_out[:_FILES_SHOWN]]
    more = len(outcome.left_out) - _FILES_SHOWN
    return lines + ([f"    and {more} more: see {report}"] if more > 0 else [])


def _parsed(line: bytes) -> Outcome:
    record = parse_json(line, max_bytes=MAX_LINE_BYTES)
    left_out = record.pop("left_out", ()) if isinstance(record, dict) else ()
    outcome = from_json(Outcome, record, where="an outcome")
    return outcome._replace(left_out=tuple(from_json(LeftOut, left, where="a file") for left in left_out))


INPUT_FINGERPRINT = "made_from"
"""Key of an avatar's description under which the result of `input_fingerprint` is stored."""

_ANEW = "remove it, or choose another folder"


class EnrollmentError(ValueError):
    """Fine-tuning cannot start; the message says why and what to do."""


class Saving(NamedTuple):
    """What is written for each person, and where."""

    folder: Path
    compact: Bits | None = None
    preview: bool = False
    notes: Mapping[str, Any] = {}
    """JSON values stored in every avatar."""
    signer: Signer | None = None
    """Signer of the previews' manifests; chosen by `load_signer` by default."""

    def avatar(self, name: str) -> Path:
        """Path of a person's avatar."""
        return self.folder / f"{name}.safetensors"


def request_digest(meta: MetaModel, settings: Mapping[str, Any]) -> str:
    """Compute a SHA-256 digest of the meta weights and the settings, to recognize avatars made with the same ones."""
    named = previous_names(settings)  # so that avatars of the last release are recognized
    text = json.dumps({"meta": meta.digest, "settings": named}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def input_fingerprint(
    person: PersonRequest, *, saving: Saving, max_shots: int | None, known: Mapping[Path, str] = {}
) -> dict[str, Any]:
    """Fingerprint a person's inputs beyond `request_digest`.

    An avatar made from other images is then never taken for this person's. `known` has digests of files that have been
    read already (`person_digest`).

    Returns:
        JSON values.
    """
    chosen: dict[str, Any] = {} if person.face is None else {"face": person.face}
    if (model := landmark_model_digest()) is not None:
        chosen["landmark_model"] = model
    return chosen | {
        "pictures": person_digest(person.shots, known),
        "landmarks": None if person.landmarks is None else bytes_or_name(person.landmarks),
        "max_shots": SHOT_COUNTS[-1] if max_shots is None else max_shots,
        "compact": saving.compact,
    }


def has_other_landmark_model(notes: Mapping[str, Any]) -> bool:
    """Return whether an avatar's notes name another landmark model than the one that this process uses."""
    made = notes.get(INPUT_FINGERPRINT)
    return isinstance(made, Mapping) and made.get("landmark_model") != landmark_model_digest()


def unfinished(
    people: Sequence[PersonRequest], saving: Saving, *, max_shots: int | None = None, report: Report | None = None
) -> list[PersonRequest]:
    """Return the people whose avatar is missing or was left damaged by a crash or a full disk.

    The images of people with an avatar are read and compared with those it was made from. The report receives missing
    lines of finished avatars, left out when a run was killed in between.

    Raises:
        EnrollmentError: if an avatar was made with other meta weights, settings, consent or images, or the file is not
            an avatar.
        ConsentError: if the consent record of a finished person cannot be read.
        OSError: if a file cannot be read or written.
    """
    known = {} if report is None else read_report(saving.folder, name=report.name, missing_ok=True)
    left = []
    for person in people:
        path = saving.avatar(person.name)
        made = avatar_description(path)
        if made is None:
            left.append(person)
            continue
        _check_same(path, made, person, saving, max_shots)
        if report is not None and (person.name not in known or known[person.name].status != "finished"):
            outcome = finished_outcome(person.name, path)
            if outcome is None:
                left.append(person)
            else:
                report.enter(outcome)
    return left


def avatar_description(path: Path) -> dict[str, Any] | None:
    """Return the description of an avatar; None if there is none or it is damaged."""
    try:
        return read_description(path, file_format=FORMAT) if path.exists() else None
    except OtherFormatError as error:
        raise EnrollmentError(f"{error}; {_ANEW}") from error
    except TensorFileError:
        return None


def _check_same(
    path: Path, made: Mapping[str, Any], person: PersonRequest, saving: Saving, max_shots: int | None
) -> None:
    """Check that an existing avatar was made with the inputs and settings of this run."""
    if made.get("request") != saving.notes.get("request"):
        raise EnrollmentError(f"{path} was made with other meta weights or settings: {_ANEW}")
    if consent_digest(made) != (None if person.consent is None else read_consent(person.consent).digest):
        raise EnrollmentError(f"{path} was made with another consent record or without one: {_ANEW}")
    before, now = made.get(INPUT_FINGERPRINT), input_fingerprint(person, saving=saving, max_shots=max_shots)
    before = before if isinstance(before, Mapping) else {}
    if any(before.get(name) != now[name] for name in ("pictures", "landmarks")):
        raise EnrollmentError(
            f"{path} was made from images other than those at {person.shots}: {_ANEW}, or choose another name"
        )
    if before.get("landmark_model") != now.get("landmark_model"):
        raise EnrollmentError(f"{path} was made with another --landmark-model: {_ANEW}")
    if before != now:
        raise EnrollmentError(f"{path} was made with another --max-shots or --compact: {_ANEW}")


def finished_outcome(name: str, path: Path) -> Outcome | None:
    """Reconstruct the outcome from an avatar file; None if the file is damaged."""
    try:
        _, made, digest = read_tensors(path)
        shots, steps, best_of = (int(made[key]) for key in ("shots", "steps", "best_of"))
    except (AvatarError, KeyError, TypeError, ValueError):
        return None
    return Outcome(name, "finished", shots=shots, avatar=str(path), steps=steps, best_of=best_of, digest=digest)
