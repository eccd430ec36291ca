"""Random selection of people, frames and shots by a seed, and its description in chosen.json for other systems."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.episodes import decode_frame
from th_jax.data.records import VideoRecords
from th_jax.evaluation.people import HeldOut
from th_jax.types import Shots

CHOSEN_FILE = "chosen.json"
CHOSEN_SCHEMA = 1
SHOTS = (1, 8, 32)
"""T in the paper."""


class Protocol(NamedTuple):
    """Settings of a named protocol."""

    people: int
    """Number of videos, of different people if there are enough."""
    targets: int
    """Number of held-out frames per video, spread evenly over it."""
    shots: tuple[int, ...] = SHOTS
    crossed: bool = False
    """Whether each person is driven by another person's frames."""


PROTOCOLS = {
    "zakharov19": Protocol(people=50, targets=32),
    "heads": Protocol(people=24, targets=8),
    "cross": Protocol(people=24, targets=8, crossed=True),
}


class Person(NamedTuple):
    """A video to evaluate."""

    name: str
    """Name of the person's folders, such as "003-head-100003"."""
    record: int
    """Number of the record in its split."""
    video_id: str
    identity: str
    order: tuple[int, ...]
    """Frame numbers of the shots in order of use: 8 shots are the first 8 of the 32."""
    targets: tuple[int, ...]
    """Frame numbers of the targets; never shots."""
    driving: tuple[int, ...]
    """Frame numbers of the driving landmarks, which name the images: `targets`, or those of the driver."""
    driver: str | None = None
    """Name of the driving person; None if the person drives themselves."""

    def shots(self, count: int) -> tuple[int, ...]:
        """Return the frame numbers of T shots, in ascending order."""
        return tuple(sorted(self.order[:count]))


class Loaded(NamedTuple):
    """A person's frames and landmarks."""

    shots: Shots
    """All shots, in the order of `Person.order`."""
    frames: UInt8[np.ndarray, "S H W 3"]
    landmarks: Float[np.ndarray, "S P 2"]
    pose: Float[np.ndarray, "S 3 3"] | None = None
    """Head rotations of the motion that drives, for crossed people."""

    def first(self, count: int) -> Shots:
        """Return the first T shots."""
        return Shots(*(np.asarray(leaf)[:count] for leaf in self.shots))

    def held(self, count: int) -> HeldOut:
        """Return one person with T sources, for baselines and scores."""
        frames, landmarks, _ = self.first(count)
        return HeldOut(
            *(np.asarray(part)[None] for part in (frames, landmarks, self.frames, self.landmarks))
        )  # fmt: skip


def choose_people(records: VideoRecords, protocol: Protocol, *, seed: int = 0) -> tuple[Person, ...]:
    """Draw videos, targets and shots at random; reads no records.

    Videos with too few frames are not drawn. People with several videos are drawn again only if there are too few
    others. A video's frames depend only on the seed, not on other choices.

    Raises:
        ValueError: if the split is empty or has too few videos with enough frames, the protocol's numbers are below 1,
            or people are to be crossed and one has more than half of the videos.
    """
    if min(protocol.people, protocol.targets, *protocol.shots) < 1 or max(protocol.shots) > SHOTS[-1]:
        raise ValueError(
            f"people and targets must be 1 or more and shots 1 to {SHOTS[-1]}, got {protocol.people}, "
            f"{protocol.targets} and {', '.join(map(str, protocol.shots))}"
        )
    if len(records) == 0:
        raise ValueError(f"{records!r} is empty: there are no people to evaluate on")
    shots, targets = max(protocol.shots), protocol.targets
    short = [number for number in range(len(records)) if records.entry(number).frames < shots + targets]
    left = sorted(set(range(len(records))) - set(short))
    if len(left) < protocol.people:
        raise ValueError(_too_few(records, protocol, len(left), short))
    if protocol.crossed and protocol.people < 2:
        raise ValueError("cross-driving needs at least 2 people, got 1")
    drawn = sorted(_one_each(records, np.random.default_rng(seed).permutation(left).tolist())[: protocol.people])
    people = [_person(records, place, number, shots, targets, seed) for place, number in enumerate(drawn)]
    return _crossed(people, seed) if protocol.crossed else tuple(people)


def load_person(records: VideoRecords, person: Person, *, image_size: int, landmarks: str) -> Loaded:
    """Load a person's frames, reduced to `image_size` pixels, with "true" or "detected" landmarks.

    Raises:
        ValueError: if a stored frame is smaller.
        DamagedRecord: if a record is damaged; names shard and record.
    """
    record = records.read(person.record)
    points = record.true_landmarks if landmarks == "true" else record.landmarks
    assert points is not None, "the list said that all records have true landmarks"

    def frames(numbers: Sequence[int]) -> np.ndarray:
        return np.stack([decode_frame(record.frames[number], size=image_size) for number in numbers])

    order, targets = list(person.order), list(person.targets)
    shots = Shots(frames(order), points[order].astype(np.float32), np.ones(len(order), np.float32))
    return Loaded(shots, frames(targets), points[targets].astype(np.float32))


def chosen_text(records: VideoRecords, people: Sequence[Person], about: Mapping[str, Any]) -> str:
    """Format chosen.json: the people and frames, for scoring another system on the same ones.

    `about` has the protocol, seed, size, landmarks and shots, as JSON values.
    """
    shots = [int(count) for count in about["shots"]]
    entries = [
        {
            "name": person.name,
            "video_id": person.video_id,
            "identity": person.identity,
            "shots": {str(count): list(person.shots(count)) for count in shots},
            "targets": list(person.targets),
            "driving": list(person.driving),
            "driver": person.driver,
        }
        for person in people
    ]
    data = {"name": records.videos.name, "split": records.split, "videos": records.videos.digest(split=records.split)}
    document = {"schema": CHOSEN_SCHEMA, **about, "data": data, "people": entries}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def frame_name(number: int) -> str:
    """Return the file name of a frame's image in all folders, such as "0008.png"."""
    return f"{number:04d}.png"


def _one_each(records: VideoRecords, numbers: Sequence[int]) -> list[int]:
    """Sort record numbers such that every person's first video precedes all second ones."""
    rounds: dict[str, int] = {}
    keyed = []
    for place, number in enumerate(numbers):
        identity = str(records.entry(number).identity)
        rounds[identity] = rounds.get(identity, -1) + 1
        keyed.append((rounds[identity], place, number))
    return [number for *_, number in sorted(keyed)]


def _person(records: VideoRecords, place: int, number: int, shots: int, targets: int, seed: int) -> Person:
    entry = records.entry(number)
    chosen = [int((i + 0.5) * entry.frames / targets) for i in range(targets)]
    rest = np.setdiff1d(np.arange(entry.frames), chosen)
    order = np.random.default_rng([seed, int(entry.row_key[:8], 16)]).permutation(rest)[:shots]
    plain = re.sub(r"[^A-Za-z0-9]+", "-", str(entry.video_id)).strip("-")[:40]
    name = f"{place:03d}-{plain or 'video'}"
    video, identity = str(entry.video_id), str(entry.identity)
    return Person(name, number, video, identity, tuple(order.tolist()), tuple(chosen), tuple(chosen))


def _crossed(people: list[Person], seed: int) -> tuple[Person, ...]:
    """Assign a driver to every video, along a random circle.

    Each video drives one, and never another video of the same person. The videos of one person are adjacent in the
    circle. Each is driven by the one as many places before it as the person with the most videos has: one, if all
    videos are of different people.

    Raises:
        ValueError: if more than half of the videos are of one person.
    """
    circle = np.random.default_rng([seed, 1]).permutation(len(people)).tolist()
    together: dict[str, list[int]] = {}
    for place in circle:
        together.setdefault(people[place].identity, []).append(place)
    identity, most = max(((name, len(places)) for name, places in together.items()), key=lambda one: one[1])
    if 2 * most > len(people):
        raise ValueError(
            f"{most} of {len(people)} videos show {identity!r}, who would be driven by their own videos: give "
            "--people or a split in which no one has more than half of the videos"
        )
    ordered = [place for places in together.values() for place in places]
    drivers = {place: people[other] for place, other in zip(ordered, np.roll(ordered, most).tolist(), strict=True)}
    return tuple(
        person._replace(driver=drivers[place].name, driving=drivers[place].targets)
        for place, person in enumerate(people)
    )


def _too_few(records: VideoRecords, protocol: Protocol, enough: int, short: Sequence[int]) -> str:
    shots, targets = max(protocol.shots), protocol.targets
    if not short:
        return f"expected {protocol.people} people, but {records!r} has {len(records)}: give --people {len(records)}"
    entry = records.entry(short[0])
    return (
        f"{protocol.people} videos with {shots} shots and {targets} other targets are needed, but only {enough} of "
        f"{records!r} have enough frames; video {entry.video_id!r} has {entry.frames}: give fewer --people, "
        "--shots or --targets"
    )
