"""Draws triplets at random: two real images and a generated one of one person (Zakharov et al. 2019, section 4)."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from th_jax.evaluation.user_study.frames import CHECK, Cell, GeneratedFrame, RealFrame, StudyFrames

TILES = 4
"""Number of rows and columns into which an attention check's fake is cut; all tiles change places."""

Named = TypeVar("Named", RealFrame, GeneratedFrame)


class Triplet(NamedTuple):
    """Three images of one person, one of which is not real."""

    method: str
    """Method that made the fake; `CHECK` for an attention check, whose fake is a scrambled real frame."""
    shots: int
    """T; 0 for an attention check."""
    person: str
    paths: tuple[str, str, str]
    """Paths in the order in which they are shown."""
    fake: int
    """1, 2 or 3."""
    videos: int
    """Number of videos that the three come from: three in the paper, but an index may have fewer for a person."""


def draw_triplets(frames: StudyFrames, *, triplets: int, checks: int, seed: int) -> tuple[Triplet, ...]:
    """Draw triplets in random order: the same number for each method and T, and attention checks among them.

    People, generated and real frames that were shown less often are preferred. The two real frames come from two
    videos, other than that of the redrawn frame, wherever a person has enough. For each method and T, each side shows
    the fake equally often. No generated frame is shown twice. `triplets` counts those with generated images, over all
    methods and T. Equal seeds and frames give equal triplets.

    Raises:
        ValueError: if a number is too small, or a method has too few frames for it.
    """
    if triplets < len(frames.cells):
        raise ValueError(
            f"{triplets} triplets are too few: each of the {len(frames.cells)} pairs of method and T in the index "
            "needs at least one"
        )
    if checks < 0 or seed < 0:
        raise ValueError(f"checks and seed must be 0 or more, got {checks} and {seed}")
    for cell, wanted in zip(frames.cells, _shares(triplets, len(frames.cells)), strict=True):
        have = sum(map(len, cell.people.values()))
        if have < wanted:
            raise ValueError(
                f"{cell.method!r} with T = {cell.shots} has {have} frames, but {wanted} triplets need as many"
            )
    draw = _Draw(frames, seed)
    sides = [_sides(draw.rng, count) for count in _shares(triplets, len(frames.cells))]
    drawn = []
    for number in range(triplets):
        which = number % len(frames.cells)
        drawn.append(draw.triplet(frames.cells[which], sides[which][number // len(frames.cells)]))
    drawn += [draw.check(side) for side in _sides(draw.rng, checks)]
    return tuple(drawn[i] for i in draw.rng.permutation(len(drawn)))


def scatter_tiles(frame: UInt8[np.ndarray, "S S 3"], *, seed: int) -> UInt8[np.ndarray, "S S 3"]:
    """Cut the frame into `TILES` x `TILES` squares and move every one of them: a fake that is obvious to any rater."""
    side = frame.shape[0] // TILES
    rng = np.random.default_rng(seed)
    order = rng.permutation(TILES**2)
    scattered = frame.copy()
    # Every tile moves along one random cycle through all places.
    for here, there in zip(order, np.roll(order, 1), strict=True):
        (y, x), (v, u) = divmod(int(here), TILES), divmod(int(there), TILES)
        tile = frame[v * side : (v + 1) * side, u * side : (u + 1) * side]
        scattered[y * side : (y + 1) * side, x * side : (x + 1) * side] = tile
    return scattered


class _Draw:
    """Random draws that remember what was shown before."""

    def __init__(self, frames: StudyFrames, seed: int) -> None:
        self.frames = frames
        self.rng = np.random.default_rng(seed)
        self.shown: Counter[str] = Counter()
        """People by "person:" and their name, frames by their path."""

    def triplet(self, cell: Cell, fake: int) -> Triplet:
        """Draw a triplet of this method and T."""
        left = [p for p, made in cell.people.items() if any(not self.shown[frame.path] for frame in made)]
        person = self.person(left)
        generated = self.least_shown(cell.people[person])
        redrawn = next(frame for frame in self.frames.real[person] if frame.path == generated.redraws)
        one, other = self.two_real(person, redrawn)
        return self.arrange(cell.method, cell.shots, person, generated.path, redrawn, (one, other), fake)

    def check(self, fake: int) -> Triplet:
        """Draw a triplet whose fake is obvious."""
        person = self.person(list(self.frames.real))
        cut = self.least_shown(self.frames.real[person])
        one, other = self.two_real(person, cut)
        return self.arrange(CHECK, 0, person, cut.path, cut, (one, other), fake)

    def arrange(
        self,
        method: str,
        shots: int,
        person: str,
        path: str,
        redrawn: RealFrame,
        real: tuple[RealFrame, RealFrame],
        fake: int,
    ) -> Triplet:
        """Put the fake on its side, and the real images on the other two in the order in which they were drawn."""
        paths = [real[0].path, real[1].path]
        paths.insert(fake - 1, path)
        videos = len({redrawn.video, real[0].video, real[1].video})
        return Triplet(method, shots, person, (paths[0], paths[1], paths[2]), fake, videos)

    def person(self, people: Sequence[str]) -> str:
        """Draw one of the people shown least often."""
        least = min(self.shown[f"person:{person}"] for person in people)
        candidates = [person for person in people if self.shown[f"person:{person}"] == least]
        chosen = candidates[int(self.rng.integers(len(candidates)))]
        self.shown[f"person:{chosen}"] += 1
        return chosen

    def two_real(self, person: str, redrawn: RealFrame) -> tuple[RealFrame, RealFrame]:
        """Draw two real frames other than the redrawn one, from other videos than it and than each other if possible."""
        rest = [frame for frame in self.frames.real[person] if frame.path != redrawn.path]
        one = self.least_shown(_of_other_videos(rest, {redrawn.video}))
        rest.remove(one)
        return one, self.least_shown(_of_other_videos(rest, {redrawn.video, one.video}))

    def least_shown(self, frames: Sequence[Named]) -> Named:
        """Draw one of the frames shown least often."""
        least = min(self.shown[frame.path] for frame in frames)
        candidates = [frame for frame in frames if self.shown[frame.path] == least]
        chosen = candidates[int(self.rng.integers(len(candidates)))]
        self.shown[chosen.path] += 1
        return chosen


def _of_other_videos(frames: Sequence[RealFrame], videos: set[str]) -> Sequence[RealFrame]:
    return [frame for frame in frames if frame.video not in videos] or frames


def _shares(total: int, parts: int) -> list[int]:
    """Divide the total into parts that differ by at most one, larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _sides(rng: np.random.Generator, count: int) -> list[int]:
    """Return sides 1, 2 and 3 in random order, repeatedly."""
    rounds = [rng.permutation(3) + 1 for _ in range(-(-count // 3))]
    return [int(side) for turn in rounds for side in turn][:count]
