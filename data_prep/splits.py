"""VoxCeleb's official splits, read from the lists that its publishers offer: who, or which video, is for what.

The lists are downloaded by the user, from https://www.robots.ox.ac.uk/~vgg/data/voxceleb/: nothing is fetched here.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from data_prep.sources import HELDOUT, TRAIN, SourceVideo
from th_jax.text import read_text

VALIDATION = "validation"

_CLIP = re.compile(r"(?P<person>id\d{5})/(?P<video>[^/\s]+)/\d{5}\.\w+")
_OF_NUMBER = {"1": TRAIN, "2": VALIDATION, "3": HELDOUT}
_OF_SET = {"dev": TRAIN, "test": HELDOUT}
_PERSON = re.compile(r"id\d{5}")


class OfficialSplit(NamedTuple):
    """The split of each person, or of each video, of a published list."""

    name: str
    """Of the list's file."""
    people: Mapping[str, str]
    videos: Mapping[str, str]
    others: str | None = None
    """The split of all that the list does not name; None if it names everybody."""

    def split_of(self, video: SourceVideo) -> str | None:
        """The split of a video; None if the list does not know it."""
        return self.people.get(video.identity, self.videos.get(video.video_id, self.others))


def read_official_split(path: Path) -> OfficialSplit:
    """One of VoxCeleb's lists, recognised by what is in it.

    * `vox1_meta.csv`, `vox2_meta.csv`: people; dev is trained on, test held out. Of VoxCeleb1 these are 1,211 and 40, of
      VoxCeleb2 5,994 and 118.
    * `iden_split.txt`: clips of VoxCeleb1, numbered 1 (train), 2 (validation) and 3 (held out), all clips of a video
      alike. All people are in all parts: a split for recognising people, not for meeting new ones.
    * `veri_test.txt` and its like: pairs of clips; the people in them are held out, all others trained on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of these lists, or contradicts itself.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    header = _cells(lines[0]) if lines else []
    if header and header[0].endswith("ID") and "Set" in header:
        return OfficialSplit(path.name, _agreeing(path, _people(path, header, lines[1:])), {})
    rows = [line.split() for line in lines]
    if rows and all(len(row) == 2 and row[0] in _OF_NUMBER and _CLIP.fullmatch(row[1]) for row in rows):
        return OfficialSplit(
            path.name, {}, _agreeing(path, ((row[1].rpartition("/")[0], _OF_NUMBER[row[0]]) for row in rows))
        )
    if rows and all(len(row) == 3 and row[0] in "01" and all(map(_CLIP.fullmatch, row[1:])) for row in rows):
        return OfficialSplit(
            path.name, {clip.partition("/")[0]: HELDOUT for row in rows for clip in row[1:]}, {}, others=TRAIN
        )
    raise ValueError(
        f"{path} is none of VoxCeleb's lists that are read here: vox1_meta.csv, vox2_meta.csv, iden_split.txt, veri_test.txt"
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"[\t,]", line)]


def _people(path: Path, header: list[str], lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    column = header.index("Set")
    for number, line in enumerate(lines, 2):
        cells = _cells(line)
        if len(cells) <= column or not _PERSON.fullmatch(cells[0]) or cells[column] not in _OF_SET:
            raise ValueError(f"line {number} of {path} names no person with the set dev or test: {line!r}")
        yield cells[0], _OF_SET[cells[column]]


def _agreeing(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for name, split in pairs:
        if splits.setdefault(name, split) != split:
            raise ValueError(f"{path} contradicts itself: {name} is for {splits[name]} and for {split}")
    return splits
