"""Fine-tuning of many people from images to avatar files.

Each avatar is written atomically as soon as it is finished, and one person's failure does not affect the others. A
single person is handled as a list of one: `finetune.py --shots` and `finetune.py --people-file` give the same avatar.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from th_jax.avatars.compact import save_compact
from th_jax.avatars.early_stopping import Stopper, StoppingSettings, split_shots
from th_jax.avatars.file import AvatarError, feed_forward_with, load_avatar, networks_for, save_avatar
from th_jax.avatars.output import INPUT_FINGERPRINT, Outcome, Report, Saving, input_fingerprint
from th_jax.avatars.person_files import read_shots
from th_jax.avatars.preview import write_preview
from th_jax.avatars.requests import PersonRequest
from th_jax.consent import FACTS, ConsentFacts, with_consent
from th_jax.consent.checks import valid_consent
from th_jax.data.shots import ImageOutcomes
from th_jax.evaluation.face_measures import check_face_models
from th_jax.losses import LossWeights
from th_jax.media import MediaError
from th_jax.models.networks import Networks
from th_jax.provenance import Ingredient
from th_jax.training.finetune import feed_forward, steps_of
from th_jax.training.finetune_people import finetune_many, fit_shots
from th_jax.training.optimizers import Optimizers
from th_jax.types import AnyArray, Avatar, MetaWeights, Shots
from th_jax.weights import MetaModel


class Interrupted(Exception):
    """Raised when a stop was requested; finished avatars are saved."""


class Finetuning(NamedTuple):
    """Fine-tuning settings: the arguments of `finetune_many`, and the early stopping settings."""

    epochs: int
    loss_weights: LossWeights
    optimizers: Optimizers
    adversary: float = 1.0
    discriminator_updates: int = 2
    averaging: float = 0.0
    at_once: int = 1
    vmap_width: int = 1
    chunk_steps: int = 10
    seed: int = 0
    stopping: StoppingSettings | None = None


OnChunk = Callable[[int, int, Float[np.ndarray, " S"]], bool]
"""Called after each chunk with the steps done, the maximum number of steps, and the generator's loss of each step so far;
returning True ends the fine-tuning and keeps the avatar."""


class _Person(NamedTuple):
    """A person whose shots have been read."""

    shots: Shots
    images: ImageOutcomes
    consent: ConsentFacts | None
    input_fingerprint: Mapping[str, Any]
    ingredients: tuple[Ingredient, ...] = ()
    stopper: Stopper | None = None


def enroll(
    meta: MetaModel,
    people: Sequence[PersonRequest],
    saving: Saving,
    *,
    finetuning: Finetuning | None,
    max_shots: int | None = None,
    report: Report,
    stop: Callable[[], bool] = lambda: False,
    on_message: Callable[[str], None] = lambda text: None,
    on_chunk: OnChunk = lambda step, steps, losses: False,
) -> Iterator[Outcome]:
    """Make the avatars of all people, and yield each outcome as soon as it is on disk.

    Args:
        meta: meta weights to fine-tune from.
        people: people that are not finished yet (`unfinished`).
        saving: where and in which format avatars are written.
        finetuning: fine-tuning settings; None makes feed-forward avatars.
        max_shots: maximum number of images used per person; 32 by default.
        report: report that receives one line per person.
        stop: callback without arguments, called between chunks of steps; returning True requests a stop.
        on_message: callback that receives progress messages.
        on_chunk: callback after each chunk of steps of a person (`OnChunk`).

    Yields:
        One outcome per person, successful or failed.

    Raises:
        Interrupted: if `stop` returned True; finished avatars are kept.
        OSError: if a file cannot be written.
        ImportError: if the extra "video" is not installed. It is not needed for people with a single photo and
            hand-marked landmarks. Raised before any work.
        FileNotFoundError: if the face models are not installed; the same exception applies.
    """
    if any(person.landmarks is None for person in people):
        check_face_models()
    fingerprint = functools.partial(input_fingerprint, saving=saving, max_shots=max_shots)
    reader = _Reader(meta, people, finetuning, fingerprint, max_shots, stop)
    clock = _Clock()
    made = (
        _feed_forward(meta, reader)
        if finetuning is None
        else _finetuned(meta, reader, finetuning, saving, stop, on_message, on_chunk)
    )
    for name, avatar, steps in made:
        yield from _failed(reader, report)
        outcome = _saved(meta, saving, name, avatar, reader.read.pop(name), steps)
        report.add(outcome._replace(seconds=clock.lap()))
        yield report.outcomes[-1]
    yield from _failed(reader, report)


class _Clock:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        before, self._last = self._last, time.monotonic()
        return round(self._last - before, 3)


class _Reader:
    """Iterates over people's shots, reading one person ahead; people whose shots cannot be read are recorded as failed."""

    def __init__(
        self,
        meta: MetaModel,
        people: Sequence[PersonRequest],
        finetuning: Finetuning | None,
        input_fingerprint: Callable[..., Mapping[str, Any]],
        max_shots: int | None,
        stop: Callable[[], bool],
    ) -> None:
        self.read: dict[str, _Person] = {}
        self.failed: list[Outcome] = []
        self._meta, self._people, self._finetuning = meta, people, finetuning
        self._input_fingerprint, self._max_shots, self._stop = input_fingerprint, max_shots, stop

    def __iter__(self) -> Iterator[tuple[str, Shots]]:
        with ThreadPoolExecutor(1, thread_name_prefix="shots") as thread:
            coming = thread.submit(self._load, self._people[0]) if self._people else None
            for number, request in enumerate(self._people):
                assert coming is not None
                read = None
                try:
                    read = coming.result()
                except (ValueError, MediaError, OSError) as error:
                    self.failed.append(Outcome(request.name, "failed", str(error)))
                if number + 1 < len(self._people):
                    coming = thread.submit(self._load, self._people[number + 1])
                if self._stop():
                    raise Interrupted
                if read is None:
                    continue
                trained, stopper = self._split(read.shots)
                self.read[request.name] = read._replace(stopper=stopper)
                yield request.name, trained

    def _load(self, request: PersonRequest) -> _Person:
        record = None if request.consent is None else valid_consent(request.consent)
        read = read_shots(
            request.shots,
            size=self._meta.networks.image_size,
            shots=self._max_shots,
            landmarks=request.landmarks,
            face=request.face,
            consent=record,
            pupils=self._meta.pupils,
        )
        return _Person(
            fit_shots(self._meta.networks, read.shots),
            read.images,
            None if record is None else ConsentFacts.of(record),
            self._input_fingerprint(request, known=read.digests),
            read.ingredients,
        )

    def _split(self, shots: Shots) -> tuple[Shots, Stopper | None]:
        settings = self._finetuning.stopping if self._finetuning is not None else None
        if settings is None:
            return shots, None
        trained, held_out = split_shots(shots, settings)
        if held_out is None:
            return shots, None
        stopper = Stopper(self._meta.networks, held_out, patience=settings.patience)
        return (trained, stopper) if stopper.usable.any() else (shots, None)


@functools.partial(jax.jit, static_argnums=0)
def _start_adain(networks: Networks, weights: MetaWeights, shots: Shots) -> Float[AnyArray, " A"]:
    return feed_forward(networks, weights, shots).adain


def _start(meta: MetaModel, shots: Shots) -> Avatar:
    """Make the feed-forward avatar. It shares the meta weights' generator, so that many waiting people need little memory."""
    return feed_forward_with(meta, _start_adain(meta.networks, meta.weights, shots))


def _feed_forward(meta: MetaModel, people: Iterable[tuple[str, Shots]]) -> Iterator[tuple[str, Avatar, int]]:
    for name, shots in people:
        yield name, _start(meta, shots), 0


def _finetuned(
    meta: MetaModel,
    reader: _Reader,
    finetuning: Finetuning,
    saving: Saving,
    stop: Callable[[], bool],
    on_message: Callable[[str], None],
    on_chunk: OnChunk,
) -> Iterator[tuple[str, Avatar, int]]:
    most: dict[str, int] = {}

    def preview(name: str, step: int, avatar: Avatar) -> None:
        person = reader.read[name]
        write_preview(
            saving.folder, name, step, meta, avatar, person.shots,
            consent=person.consent, ingredients=person.ingredients, signer=saving.signer,
        )  # fmt: skip

    def observe(name: str, avatar: Avatar, metrics: Mapping[str, np.ndarray]) -> bool:
        if stop():
            raise Interrupted
        step, person = len(metrics["loss/generator"]), reader.read[name]
        on_message(f"{name}: step {step}, loss {metrics['loss/generator'][-1]:.3g}")
        if saving.preview:
            preview(name, step, avatar)
        ended = on_chunk(step, most[name], metrics["loss/generator"])
        return (person.stopper is not None and person.stopper.look(avatar, step)) or ended

    def people() -> Iterator[tuple[str, Shots]]:
        for name, shots in reader:
            person = reader.read[name]
            most[name] = steps_of(int(np.asarray(shots.mask).sum()), epochs=finetuning.epochs)
            if person.stopper is not None or saving.preview:
                start = _start(meta, fit_shots(meta.networks, shots))
                if person.stopper is not None:
                    person.stopper.look(start, 0)
                if saving.preview:
                    preview(name, 0, start)
            yield name, shots

    how = finetuning
    for person in finetune_many(
        meta.networks, meta.weights, meta.perceptual, people(), epochs=how.epochs, loss_weights=how.loss_weights,
        optimizers=how.optimizers, adversary=how.adversary, discriminator_updates=how.discriminator_updates,
        averaging=how.averaging, at_once=how.at_once, vmap_width=how.vmap_width, chunk_steps=how.chunk_steps,
        observe=observe, key=jax.random.key(how.seed),
    ):  # fmt: skip
        yield person.name, person.avatar, len(person.metrics["loss/generator"])


def _saved(meta: MetaModel, saving: Saving, name: str, avatar: Avatar, person: _Person, steps: int) -> Outcome:
    """Write one avatar; if its values are not finite, only this person fails."""
    stopper, tried = person.stopper, 0
    if stopper is not None and stopper.best is not None:
        avatar, steps, tried = stopper.best, stopper.best_step, steps
    real = np.asarray(person.shots.mask) > 0
    landmarks = np.asarray(person.shots.landmarks)[real]
    path, (looked_at, spare, left_out) = saving.avatar(name), person.images
    outcome = Outcome(
        name, "finished", shots=int(real.sum()), looked_at=looked_at, spare=spare, left_out=left_out,
        avatar=str(path), steps=steps, best_of=tried,
    )  # fmt: skip
    facts = None if person.consent is None else person.consent.to_dict()
    notes = {**saving.notes, "shots": outcome.shots, "steps": steps, "best_of": tried, FACTS: facts}
    notes[INPUT_FINGERPRINT] = dict(person.input_fingerprint)
    notes |= {"held_out_scores": [round(score, 4) for score in stopper.scores]} if stopper is not None else {}
    record = dataclasses.replace(meta.provenance.of(person.shots), ingredients=person.ingredients)
    described: dict[str, Any] = {
        "networks": networks_for(meta.networks, person.shots), "provenance": with_consent(record, person.consent),
        "meta": meta, "landmarks": landmarks, "notes": notes,
    }  # fmt: skip
    try:
        if saving.compact is None or steps == 0:
            kind: Any = "full" if steps else "feed_forward"
            return outcome._replace(digest=save_avatar(path, avatar, kind=kind, **described))
        whole = saving.folder / f".{name}.whole.safetensors"
        try:
            save_avatar(whole, avatar, **described)
            small = save_compact(path, load_avatar(whole), meta=meta, bits=saving.compact)
        finally:
            whole.unlink(missing_ok=True)
        return outcome._replace(digest=small.digest)
    except AvatarError as error:
        return outcome._replace(status="failed", reason=str(error), avatar="")


def _failed(reader: _Reader, report: Report) -> Iterator[Outcome]:
    while reader.failed:
        report.add(reader.failed.pop(0))
        yield report.outcomes[-1]
