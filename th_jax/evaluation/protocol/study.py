"""The index that makes a run's pictures a user study's frames: `user_study build --frames OUT/study`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from th_jax.evaluation.protocol.cells import REAL, STUDY_FOLDER, Kept
from th_jax.evaluation.protocol.plan import Person, frame_name
from th_jax.evaluation.user_study.frames import INDEX_FILE, INDEX_SCHEMA
from th_jax.run_files import write_whole

_LEAST_REAL = 3
"""Real frames of a person that a triplet needs."""


def write_study(
    kept: Kept,
    people: Sequence[Person],
    *,
    cells: Sequence[tuple[str, int]],
    name: str,
    size: int,
    weights: Mapping[str, str],
) -> bool:
    """Write OUT/study/study_frames.json; False if people are crossed or have too few real frames for triplets.

    Args:
        kept: the run's files, all pictures among them.
        people: who is judged. One with several videos is one in the study.
        cells: methods and T whose pictures raters may see.
        name: of the run, shown in the study's report.
        size: side of the pictures, pixels.
        weights: digests by name.

    Raises:
        OSError: if the disk refuses.
    """
    real: dict[str, list[dict[str, str]]] = {}
    for person in people:
        real.setdefault(person.identity, []).extend(
            {"path": _path(REAL, 0, person, number), "video": person.video_id} for number in person.targets
        )
    crossed = any(person.driver is not None for person in people)
    if crossed or min(map(len, real.values())) < _LEAST_REAL:
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
    path = kept.folder / STUDY_FOLDER / INDEX_FILE
    write_whole(str(path), (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    return True


def _path(method: str, shots: int, person: Person, number: int) -> str:
    folder = method if method == REAL else f"{method}-{shots}"
    return f"{folder}/{person.name}/{frame_name(number)}"
