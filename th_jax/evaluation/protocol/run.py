"""Runs a protocol: real frames first, then every person at every T by every method; finished cells are skipped."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.records import VideoRecords
from th_jax.evaluation import metrics
from th_jax.evaluation.face_measures import measure_faces
from th_jax.evaluation.heldout import baseline_frames
from th_jax.evaluation.protocol.measure import Faces, cross_table, head_pose, own_table
from th_jax.evaluation.protocol.plan import Loaded, Person, Protocol, load_person
from th_jax.evaluation.protocol.score_store import REAL, Cell, ScoreStore, Table, baseline_shots, read_baseline
from th_jax.landmarks.methods import Method, Target, make_retargeter
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance
from th_jax.provenance.record import pixel_digest
from th_jax.render import CHUNK, render
from th_jax.training.finetune import feed_forward
from th_jax.training.finetune_people import FinetuneMetrics, finetune_many, fit_shots
from th_jax.training.presets import Settings, finetune_arguments
from th_jax.types import Avatar, MetaWeights, Shots
from th_jax.weights import MetaModel

OURS = "ours"
"""Group of our methods, whose results share a cell."""

COPIES = ("nearest_copy", "mean_frame")
OUR_METHODS = ("FF", "FT", *COPIES)
SELF_DRIVEN = "FT self-driven"
"""The fine-tuned avatars of crossed people, driven by their own landmarks: what cross-driving is compared with."""
RESERVED = frozenset({OURS, REAL, *OUR_METHODS, "check"})
"""Names that other systems may not have."""


class Stopped(Exception):
    """Raised when a stop was requested; finished people are stored."""


class Evaluation(NamedTuple):
    """All settings and inputs of a run."""

    meta: MetaModel
    settings: Settings
    records: VideoRecords
    protocol: Protocol
    people: tuple[Person, ...]
    store: ScoreStore
    landmarks: str = "true"
    faces: bool = True
    retargeting: Method = "none"
    curve: bool = False
    """Whether images are measured between chunks of fine-tuning."""
    baselines: Mapping[str, Path] = {}
    weights: Mapping[str, str] = {}
    only: frozenset[str] | None = None
    """Names of the people whom this process measures; None for all."""

    @property
    def measured(self) -> tuple[Person, ...]:
        """The people whom this process measures."""
        return tuple(person for person in self.people if self.only is None or person.name in self.only)

    def load(self, person: Person) -> Loaded:
        """Load the person's frames, and the driving landmarks: of their own targets, or of the driver's."""
        loaded = self.load_own(person)
        if person.driver is None:
            return loaded
        (driver,) = (other for other in self.people if other.name == person.driver)
        driving = self.load_own(driver)
        target = Target(self.retargeting, np.asarray(loaded.shots.landmarks))
        points = make_retargeter(target, np.asarray(driving.shots.landmarks))(driving.landmarks).astype(np.float32)
        return loaded._replace(landmarks=points, pose=own_pose(driving))

    def load_own(self, person: Person) -> Loaded:
        """Load the person's frames and the landmarks of their own targets."""
        return load_person(
            self.records, person, image_size=self.meta.networks.image_size, landmarks=self.landmarks
        )  # fmt: skip


class Progress(NamedTuple):
    """Callbacks for progress messages and stopping."""

    on_cell: Callable[[], Any] = lambda: None
    """Called for every cell that is on disk."""
    on_message: Callable[[str], Any] = lambda text: None
    stop: Callable[[], bool] = lambda: False


def own_pose(loaded: Loaded) -> Float[np.ndarray, "S 3 3"]:
    """Read a person's own head rotations from the data set's landmarks."""
    known = np.concatenate([np.asarray(loaded.shots.landmarks), loaded.landmarks])
    return head_pose(loaded.landmarks, known=known)


def cell_count(evaluation: Evaluation) -> int:
    """Return the maximum number of cells of a run: real frames, ours, and those of other systems."""
    systems = 1 + len(evaluation.baselines)
    return len(evaluation.measured) * (1 + systems * len(evaluation.protocol.shots))


def run(evaluation: Evaluation, progress: Progress) -> Faces | None:
    """Compute all measures that are not stored yet, and return the face measures of the real frames.

    Raises:
        Stopped: if `progress.stop` returns True.
        ValueError: if no face was detected in any real frame, or another system's images or the settings are invalid.
        FileNotFoundError: if another system's images are incomplete.
        DamagedRecord: if a record is damaged; names shard and record.
        ImportError: if the extra "video" is not installed.
        OSError: if a file cannot be written.
    """
    for name, folder in evaluation.baselines.items():
        _check_baseline(name, folder, evaluation)
    faces = _real(evaluation, progress)
    for person in evaluation.measured:
        _score_real(evaluation, person, faces)
        progress.on_cell()
    _score_ours(evaluation, faces, progress)
    for name, folder in evaluation.baselines.items():
        _score_baseline(name, folder, evaluation, faces, progress)
    return faces


def _table(
    evaluation: Evaluation,
    person: Person,
    loaded: Loaded,
    frames: UInt8[np.ndarray, "S H W 3"],
    faces: Faces | None,
    *,
    shown: str | None = None,
) -> Table:
    if person.driver is None:
        held = loaded.held(1)  # scores use the targets alone
        return own_table(held, frames, person=person.name, perceptual=evaluation.meta.perceptual, faces=faces)
    assert faces is not None, "the command line asks for faces where people are crossed"
    assert loaded.pose is not None, "load reads it where people are crossed"
    return cross_table(
        frames, loaded.landmarks, pose=loaded.pose, person=person.name, driver=person.driver, faces=faces, shown=shown
    )  # fmt: skip


def _real(evaluation: Evaluation, progress: Progress) -> Faces | None:
    """Write the real targets as images, and measure their faces."""
    kind = Kind.SYNTHETIC_RENDER if evaluation.records.videos.true_landmarks else Kind.REAL_CROP
    measured = {}
    for person in evaluation.people:  # identities are measured relative to the mean of all of them
        if progress.stop():
            raise Stopped
        progress.on_message(f"{person.name}: real frames")
        found = evaluation.store.read_faces(person)
        if (evaluation.faces and found is None) or evaluation.store.read(REAL, 0, person) is None:
            frames = evaluation.load_own(person).frames
            evaluation.store.write_images(REAL, 0, person, frames, Provenance(kind=kind, notes="held-out frame"))
            if evaluation.faces and found is None:
                found = measure_faces(frames)
                evaluation.store.write_faces(person, found)
        if found is not None:
            measured[person.name] = found
    return Faces(measured) if evaluation.faces else None


def _score_real(evaluation: Evaluation, person: Person, faces: Faces | None) -> None:
    """Score real frames in place of generated ones: the person's own, or the driver's, which match pose but not identity."""
    if evaluation.store.read(REAL, 0, person) is not None:
        return
    loaded = evaluation.load(person)
    if person.driver is None:
        frames = loaded.frames
    else:
        (driver,) = (other for other in evaluation.people if other.name == person.driver)
        frames = evaluation.load_own(driver).frames
    method = REAL if person.driver is None else "driver"
    table = _table(evaluation, person, loaded, frames, faces, shown=person.driver)
    evaluation.store.write(REAL, 0, person, Cell({method: table}, {}))


@functools.partial(jax.jit, static_argnums=0)
def _start(networks: Networks, weights: MetaWeights, shots: Shots) -> Avatar:
    return feed_forward(networks, weights, shots)


def _score_ours(evaluation: Evaluation, faces: Faces | None, progress: Progress) -> None:
    meta, networks = evaluation.meta, evaluation.meta.networks
    arguments = finetune_arguments(evaluation.settings, meta.perceptual)
    waiting: dict[str, tuple[Person, int, Loaded, list[dict[str, float]]]] = {}

    def redrawn(avatar: Avatar, loaded: Loaded) -> np.ndarray:
        return render(networks, avatar, loaded.landmarks, chunk=min(CHUNK, len(loaded.landmarks)))

    def pending() -> Iterator[tuple[str, Shots]]:
        for count in evaluation.protocol.shots:
            for person in evaluation.measured:
                if evaluation.store.read(OURS, count, person) is not None:
                    progress.on_cell()
                    continue
                loaded = evaluation.load(person)
                waiting[f"T = {count}, {person.name}"] = (person, count, loaded, [])
                yield f"T = {count}, {person.name}", loaded.first(count)

    def observe(name: str, avatar: Avatar, steps: FinetuneMetrics) -> bool:
        if progress.stop():
            raise Stopped
        loss = steps["loss/generator"]
        progress.on_message(f"{name}: step {len(loss)}, loss {loss[-1]:.3g}")
        person, _, loaded, curve = waiting[name]
        if evaluation.curve and person.driver is None:
            curve.append({"step": len(loss), **_pixel_means(redrawn(avatar, loaded), loaded)})
        return False  # early stopping would select each person's steps by held-out images

    people = pending()
    for done in finetune_many(
        networks, meta.weights, meta.perceptual, people, **arguments,
        observe=observe, key=jax.random.key(evaluation.settings["seed"]),
    ):  # fmt: skip
        person, count, loaded, curve = waiting.pop(done.name)
        progress.on_message(f"{done.name}: scores")
        shots, held = loaded.first(count), loaded.held(count)
        start = _start(networks, meta.weights, fit_shots(networks, shots))
        frames = {"FF": redrawn(start, loaded), "FT": redrawn(done.avatar, loaded)}
        record = Provenance(kind=Kind.GENERATED, weights=evaluation.weights).of(shots)
        for method, images in frames.items():
            evaluation.store.write_images(method, count, person, images, record)
        frames |= {kind: baseline_frames(held, kind)[0] for kind in COPIES}
        if evaluation.curve and person.driver is None:
            curve.insert(0, {"step": 0, **_pixel_means(frames["FF"], loaded)})
        tables = {method: _table(evaluation, person, loaded, made, faces) for method, made in frames.items()}
        if person.driver is not None:
            assert faces is not None, "the command line asks for faces where people are crossed"
            own = evaluation.load_own(person)
            tables[SELF_DRIVEN] = cross_table(
                redrawn(done.avatar, own), own.landmarks, pose=own_pose(own), person=person.name, driver=person.driver,
                faces=faces, own_motion=True,
            )  # fmt: skip
        about = {"steps": len(done.metrics["loss/generator"]), "curve": curve}
        evaluation.store.write(OURS, count, person, Cell(tables, about))
        progress.on_cell()


def _pixel_means(frames: np.ndarray, loaded: Loaded) -> dict[str, float]:
    made, wanted = frames / 255.0, loaded.frames / 255.0
    return {"l1/frame": float(metrics.l1(made, wanted).mean()), "ssim": float(metrics.ssim(made, wanted).mean())}


def _check_baseline(name: str, folder: Path, evaluation: Evaluation) -> None:
    """Check all images of another system before anything is computed."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} with the frames of {name} does not exist")
    size = evaluation.meta.networks.image_size
    for count in evaluation.protocol.shots:
        for person in evaluation.people:
            read_baseline(folder, count, person, size=size)
    if not baseline_shots(folder, evaluation.protocol.shots):
        wanted = ", ".join(f"T{count}" for count in evaluation.protocol.shots)
        raise FileNotFoundError(f"{folder} has no frames of {name}: none of the folders {wanted} exists")


def _score_baseline(name: str, folder: Path, evaluation: Evaluation, faces: Faces | None, progress: Progress) -> None:
    for count in evaluation.protocol.shots:
        for person in evaluation.measured:
            if progress.stop():
                raise Stopped
            progress.on_message(f"{name}, T = {count}, {person.name}")
            frames = read_baseline(folder, count, person, size=evaluation.meta.networks.image_size)
            stored = evaluation.store.read(name, count, person)
            if frames is not None:
                about = {"pixels": pixel_digest(frames)}
                if stored is None or stored.about != about:
                    notes = f"frame of the baseline {name}, generated by another system"
                    record = Provenance(
                        kind=Kind.GENERATED, software=name, version="unknown", inputs=(about["pixels"],), notes=notes
                    )
                    evaluation.store.write_images(name, count, person, frames, record)
                    loaded = evaluation.load(person)
                    cell = Cell({name: _table(evaluation, person, loaded, frames, faces)}, about)
                    evaluation.store.write(name, count, person, cell)
            progress.on_cell()
