"""Scores of a run's images by the judge networks: tables of frames, and distances of whole sets.

Judges only need images and landmarks, and can therefore be added after a run. Their features of a person's images are
stored in OUT/networks/NAME-DIGEST, so that each is computed once.
"""

import functools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation.face_measures import measure_faces
from th_jax.evaluation.heldout import baseline_frames
from th_jax.evaluation.judges.identity import identity_features
from th_jax.evaluation.judges.lpips import LpipsWeights, lpips_distance
from th_jax.evaluation.judges.network_file import FeatureNetwork
from th_jax.evaluation.judges.sets import SetDistance, set_distances
from th_jax.evaluation.protocol.judges import LPIPS, Judges
from th_jax.evaluation.protocol.measure import Faces, named_identity_table
from th_jax.evaluation.protocol.plan import Person
from th_jax.evaluation.protocol.run import COPIES, OUR_METHODS, Evaluation, Progress, Stopped
from th_jax.evaluation.protocol.score_store import REAL, MethodAtShots, Table, baseline_shots
from th_jax.provenance.record import pixel_digest
from th_jax.storage.files import whole_file

NETWORK_FOLDER = "networks"
DRIVER = "driver"


class Answers(NamedTuple):
    """Results by method and T; real frames have T = 0."""

    tables: Mapping[MethodAtShots, Mapping[str, Float[np.ndarray, "I S"]]]
    """Measures of each frame; NaN where no face was detected."""
    distances: Mapping[MethodAtShots, Mapping[str, SetDistance]]
    """Distances from the real frames of all people."""


class Shown(NamedTuple):
    """A person's images by one method at one T."""

    method: str
    shots: int
    """T."""
    person: Person
    frames: UInt8[np.ndarray, "S H W 3"]
    real: UInt8[np.ndarray, "S H W 3"]
    """Held-out frames of the same person."""


def ask_judges(evaluation: Evaluation, judges: Judges, faces: Faces | None, progress: Progress) -> Answers:
    """Apply every network to all images of a run whose cells are complete.

    Identity requires the face measures of the real targets.

    Raises:
        Stopped: if `progress.stop` returns True.
        ValueError: if a stored image is missing or damaged, or a network fails.
        OSError: if a file cannot be written.
    """
    tables: dict[MethodAtShots, list[Table]] = {}
    features: dict[str, dict[MethodAtShots, list[np.ndarray]]] = {network.name: {} for network in judges.sets}
    identities: dict[str, dict[str, np.ndarray]] = {network.name: {} for network in judges.identity}
    for person in evaluation.people:
        if progress.stop():
            raise Stopped
        frames = evaluation.store.read_images(REAL, 0, person)
        shown = Shown(REAL, 0, person, frames, frames)
        for network in judges.identity:
            identities[network.name][person.name] = _identity_rows(evaluation, network, shown, faces)
    for shown in _all_shown(evaluation):
        if progress.stop():
            raise Stopped
        progress.on_message(f"networks: {shown.method}, T = {shown.shots}, {shown.person.name}")
        cell = shown.method, shown.shots
        table: Table = {}
        for network in judges.identity:
            made = _identity_rows(evaluation, network, shown, faces)
            table |= named_identity_table(made, identities[network.name], shown.person, network=network.name)
        if judges.lpips is not None and shown.person.driver is None:
            table[LPIPS] = _lpips(evaluation, judges, judges.lpips, shown)
        tables.setdefault(cell, []).append(table)
        for one in judges.sets:
            row = _kept_rows(evaluation, one.name, one.about, shown, functools.partial(one.features, shown.frames))
            features[one.name].setdefault(cell, []).append(row)
    distances: dict[MethodAtShots, dict[str, SetDistance]] = {cell: {} for cell in tables if cell[1]}
    for one in judges.sets:
        rows = {cell: np.concatenate(parts) for cell, parts in features[one.name].items()}
        # Drivers' frames are the same real frames in another order.
        (real,) = (rows[cell] for cell in rows if not cell[1])
        for cell in distances:
            distances[cell] |= set_distances(one, rows[cell], real)
    stacked = {cell: {name: np.stack([row[name] for row in rows]) for name in rows[0]} for cell, rows in tables.items()}
    return Answers(stacked, distances)


def _all_shown(evaluation: Evaluation) -> Iterator[Shown]:
    """Yield all people's images by every method at every T; real frames, or the driver's, have T = 0."""
    store, shots = evaluation.store, evaluation.protocol.shots
    baselines = {name: baseline_shots(folder, shots) for name, folder in evaluation.baselines.items()}
    by_name = {person.name: person for person in evaluation.people}
    for person in evaluation.people:
        real = store.read_images(REAL, 0, person)
        if person.driver is None:
            yield Shown(REAL, 0, person, real, real)
        else:
            yield Shown(DRIVER, 0, person, store.read_images(REAL, 0, by_name[person.driver]), real)
        loaded = evaluation.load(person)
        for count in shots:
            for method in OUR_METHODS:
                if method in COPIES:
                    frames = baseline_frames(loaded.held(count), method)[0]
                else:
                    frames = store.read_images(method, count, person)
                yield Shown(method, count, person, frames, real)
        for name, counts in baselines.items():
            for count in counts:
                yield Shown(name, count, person, store.read_images(name, count, person), real)


def _identity_rows(evaluation: Evaluation, network: FeatureNetwork, shown: Shown, faces: Faces | None) -> np.ndarray:
    assert faces is not None, "the command line refuses face networks where faces are not measured"

    def answer() -> np.ndarray:
        known = faces.of[shown.person.name] if shown.method == REAL else measure_faces(shown.frames, descriptors=False)
        return identity_features(network, shown.frames, known.landmarks)

    return _kept_rows(evaluation, network.name, network.about, shown, answer)


def _lpips(evaluation: Evaluation, judges: Judges, weights: LpipsWeights, shown: Shown) -> np.ndarray:
    def answer() -> np.ndarray:
        return lpips_distance(weights, shown.frames, shown.real)[:, None]

    return _kept_rows(evaluation, LPIPS, judges.lpips_about, shown, answer)[:, 0]


def _kept_rows(
    evaluation: Evaluation, name: str, about: Mapping[str, Any], shown: Shown, answer: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return stored features if they are of these images by this network; otherwise compute and store them."""
    place = (
        evaluation.store.folder / NETWORK_FOLDER / f"{name}-{about['sha256'][:16]}" / f"{shown.method}-{shown.shots}"
    )
    path = place / f"{shown.person.name}.npz"
    asked = json.dumps({"network": about, "pixels": pixel_digest(shown.frames)}, sort_keys=True)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["asked"]) == asked and arrays["features"].shape == (len(shown.frames), about["dimensions"]):
                return np.asarray(arrays["features"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        pass  # missing or damaged: computed again
    features = answer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        np.savez(file, features=features, asked=np.array(asked))
    return features
