"""Writes the index that makes a run's images usable in a user study: `user_study build --frames OUT/study`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from th_jax.evaluation.protocol.plan import Person, frame_name
from th_jax.evaluation.protocol.score_store import REAL, STUDY_FOLDER, ScoreStore
from th_jax.evaluation.user_study.frames import INDEX_FILE, INDEX_SCHEMA
from th_jax.storage.run_folder import write_whole

_MIN_REAL = 3
"""Minimum number of real frames of a person for a triplet."""


def write_study(
    store: ScoreStore,
    people: Sequence[Person],
    *,
    cells: Sequence[tuple[str, int]],
    name: str,
    size: int,
    weights: Mapping[str, str],
) -> bool:
    """Write OUT/study/study_frames.json.

    `cells` are the methods and T whose images raters may see. A person with several videos is one person in the study.

    Returns:
        False if nothing was written, because people are crossed or have too few real frames for triplets.

    Raises:
        OSError: if the file cannot be written.
    """
    real: dict[str, list[dict[str, str]]] = {}
    for person in people:
        real.setdefault(person.identity, []).extend(
            {"path": _path(REAL, 0, person, number), "video": person.video_id} for number in person.targets
        )
    crossed = any(person.driver is not None for person in people)
    if crossed or min(map(len, real.values())) < _MIN_REAL:
        return False
    generated = []
    for method, count in cells:
        made: dict[str, list[dict[str, str]]] = {}
        for person in people:
            made.setdefault(person.identity, []).extend(
                {"path": _path(method, count, person, number), "redraws": _path(REAL, 0, person, number)}
                for number in person.targets
            )
        generated.append({"method": method, "shots": count, "people": made})
    index: dict[str, Any] = {
        "schema": INDEX_SCHEMA, "name": name, "size": size, "real": real, "generated": generated, "weights": dict(weights),
    }  # fmt: skip
    path = store.folder / STUDY_FOLDER / INDEX_FILE
    write_whole(str(path), (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    return True


def _path(method: str, shots: int, person: Person, number: int) -> str:
    folder = method if method == REAL else f"{method}-{shots}"
    return f"{folder}/{person.name}/{frame_name(number)}"
