"""Makes an avatar as a job: consent record, feed-forward preview, fine-tuning with previews, and the avatar file."""

import contextlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from th_jax.avatars.enroll import Interrupted, enroll
from th_jax.avatars.examples import PEOPLE, consent_of, write_shots
from th_jax.avatars.output import Report, Saving, finished_outcome, request_digest, unfinished
from th_jax.avatars.requests import PersonRequest
from th_jax.avatars.settings import default_config, finetuning_of
from th_jax.consent import Basis, ConsentError, ConsentRecord, make_consent, write_consent
from th_jax.consent.record import Use
from th_jax.provenance.signing_options import tried_signer
from th_jax.storage.files import whole_file
from th_jax.studio.folder import StudioFolder, shots_in, single_photo
from th_jax.studio.jobs import Cancelled, Job
from th_jax.studio.points import Points
from th_jax.training.presets import preset_of
from th_jax.weights import MetaModel

BASES = {
    "I am the person shown": Basis.SELF,
    "the person shown agreed": Basis.CONSENT_GIVEN,
    "the person does not exist": Basis.SYNTHETIC,
    "the images are in the public domain": Basis.PUBLIC_DOMAIN,
}
"""Sentences of the consent form."""


class ConsentForm(NamedTuple):
    """The consent form as it was filled in."""

    subject: str
    """Name or pseudonym of the person shown."""
    basis: str
    """One of `BASES`, or the name of a basis."""
    uses: Sequence[str] = ("private",)
    scope: str = ""
    expires: str = ""
    """A date such as 2027-01-31, its first moment in UTC, or empty."""


def record_of(form: ConsentForm, shots: Path) -> ConsentRecord:
    """Make the consent record of a form for these images.

    Raises:
        ConsentError: if a field is missing or malformed; the message names it.
    """
    if not form.subject.strip():
        raise ConsentError("the consent form needs the name or a pseudonym of the person shown")
    basis = BASES.get(form.basis, form.basis)
    if basis not in list(Basis):
        raise ConsentError("choose on the consent form why the images may be used")
    if not form.uses or not set(form.uses) <= {str(use) for use in Use}:
        raise ConsentError(f"choose at least one use on the consent form: {', '.join(Use)}")
    expires = form.expires.strip() or None
    if expires is not None:
        try:
            expires = f"{date.fromisoformat(expires)}T00:00:00+00:00"
        except ValueError:
            raise ConsentError(f"the end of the consent must be a date such as 2027-01-31, got {expires!r}") from None
    return make_consent(
        shots, subject=form.subject.strip(), basis=Basis(basis), uses=tuple(map(Use, form.uses)),
        scope=form.scope.strip(), expires=expires,
    )  # fmt: skip


def prepare_person(
    folder: StudioFolder, name: str, draft: Path, form: ConsentForm, *, points: Points | None = None
) -> PersonRequest:
    """Copy a draft's images to the person's folder and write the consent record.

    Args:
        folder: the studio's folder.
        name: name of the avatar.
        draft: folder of the images.
        form: the consent form.
        points: landmarks in pixels that were placed by hand on a single photo.

    Raises:
        ValueError: if the name is taken or invalid, or there are no images.
        ConsentError: as `record_of`.
        OSError: if a file cannot be written.
    """
    if folder.avatar(name).exists():
        raise ValueError(f"there is already an avatar {name!r}: choose another name, or delete it in the gallery")
    if not draft.is_dir() or not any(draft.iterdir()):
        raise ValueError("there are no images: drop photos or a video first")
    if points is not None:
        single_photo(draft)
    record = record_of(form, shots_in(draft))
    own = folder.shots / name
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(own)
    shutil.copytree(draft, own)
    write_consent(folder.consent(name), record, overwrite=True)  # one of a job that was killed
    if points is None:
        return PersonRequest(name, shots_in(own), consent=folder.consent(name))
    text = "".join(f"{x:.2f} {y:.2f}\n" for x, y in points)
    with whole_file(folder.landmarks(name)) as file:
        file.write(text.encode())
    return PersonRequest(name, single_photo(own), folder.landmarks(name), folder.consent(name))


def prepare_example(folder: StudioFolder, name: str) -> PersonRequest:
    """Write the images and the consent record of a bundled person.

    Raises:
        ValueError: if the name is unknown.
        OSError: if a file cannot be written.
    """
    if name not in PEOPLE:
        raise ValueError(f"the bundled people are {', '.join(PEOPLE)}, got {name!r}")
    own = folder.shots / name
    shutil.rmtree(own, ignore_errors=True)
    shots = write_shots(name, own)
    write_consent(folder.consent(name), consent_of(name, shots), overwrite=True)
    return PersonRequest(name, shots, consent=folder.consent(name))


def make_avatar(job: Job, folder: StudioFolder, person: PersonRequest, *, weights: Callable[[], MetaModel]) -> str:
    """Fine-tune a person's avatar within a job, and return a sentence about it.

    The avatar is the one of `th-jax finetune`.

    Raises:
        Cancelled: if the job was canceled.
        ValueError: if no image is usable or the avatar is not finite.
    """
    job.stage("loading the weights")
    signer = tried_signer(None, None)
    meta = weights()
    config = default_config(preset_of(meta.description))
    notes = {"request": request_digest(meta, config), "settings": config}
    saving = Saving(folder.avatars, None, True, notes, signer)
    if not unfinished([person], saving) and (done := finished_outcome(person.name, saving.avatar(person.name))):
        return f"{person.name}: {done.shots} shots, {done.steps} fine-tuning steps"  # then the process was killed
    job.stage("finding faces, the feed-forward preview, and preparing to fine-tune")

    def on_chunk(step: int, steps: int, losses: np.ndarray) -> bool:
        if job.current != "fine-tuning":
            job.stage("fine-tuning", done=step)
        job.losses = tuple(float(loss) for loss in losses)
        job.advance(step, steps)
        return job.keep_requested

    with jax.default_matmul_precision(config["matmul_precision"]):
        try:
            (made,) = enroll(
                meta, [person], saving, finetuning=finetuning_of(config, meta), report=Report(folder.avatars),
                stop=lambda: job.stopped, on_chunk=on_chunk,
            )  # fmt: skip
        except Interrupted:
            raise Cancelled from None
    if made.status == "failed":
        raise ValueError(made.reason.replace(str(person.shots), "the images"))
    left_out = f", {len(made.left_out)} left out" if made.left_out else ""
    return f"{person.name}: {made.shots} shots{left_out}, {made.steps} fine-tuning steps"


def finetune_command(folder: StudioFolder, person: PersonRequest, *, meta: str) -> str:
    """Return the command line that makes the same avatar."""
    words = ["th-jax", "finetune", "--meta", meta, "--shots", str(person.shots), "--name", person.name]
    words += [] if person.landmarks is None else ["--landmarks", str(person.landmarks)]
    return shlex.join([*words, "--consent", str(person.consent), "--out", str(folder.avatars), "--preview"])
