"""The plan of a data set, made before anything is decoded: its videos, their order and splits, and the preparation."""

import hashlib
import importlib.util
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.build.drop_report import Drop
from data_prep.build.preparation import describe_preparation
from data_prep.build.prepare_video import Settings
from data_prep.build.quality import Reason
from data_prep.build.sources import TRAIN, Layout, Listing, OfficialSplit, SourceVideo, list_source, split_of
from th_jax.data.schema import shard_name
from th_jax.data.video_list import row_key
from th_jax.faces import Box, detect_faces, landmarks_in_box
from th_jax.optional import install_command, pillow, pyav

NAME = "faces"
PREPARATION_FILE = "preparation.json"


class Selection(NamedTuple):
    """The videos of a source that go into a data set, and their splits."""

    layout: Layout = Layout.AUTO
    heldout_share: float = 0.0
    """Share of people to hold out, 0 to 1, chosen by a hash of their names."""
    heldout_people: Collection[str] = frozenset()
    official: OfficialSplit | None = None
    """Published split, which replaces the two settings above and the splits of VoxCeleb's folders."""
    takedown: Collection[str] = frozenset()
    """People, or video ids, to leave out."""
    name: str = NAME
    """Name of the data set, part of its file names."""


class Plan(NamedTuple):
    """All decisions about a data set."""

    name: str
    videos: tuple[SourceVideo, ...]
    splits: tuple[str, ...]
    """The split of each video."""
    taken_down: tuple[SourceVideo, ...]
    drops: tuple[Drop, ...]
    """Drops of files that belong to no video, and of videos that are taken down."""
    preparation: dict[str, Any]
    """Output of `data_prep.build.preparation.describe_preparation`."""
    document: str
    """Description of the preparation, stored in the data set; contains no names of people."""


def make_plan(source: Path | str, settings: Settings, selection: Selection) -> Plan:
    """List a source and plan the data set.

    Raises:
        FileNotFoundError: if the source or the landmark model does not exist.
        ImportError: without the extra `prep`.
        ValueError: for invalid settings or splits, or a source without readable files.
    """
    _check(settings, selection)
    listing = list_source(source, selection.layout)
    _check_people(listing, selection)
    _check_backends()
    gone = [video for video in listing.videos if {video.identity, video.video_id} & set(selection.takedown)]
    hidden = {video.video_id for video in gone}
    videos = tuple(video for video in listing.videos if video.video_id not in hidden)
    shown = tuple(drop for drop in listing.drops if not _lies_below(drop.path, selection.takedown))
    preparation = describe_preparation(settings)
    return Plan(
        selection.name,
        videos,
        tuple(_splits(videos, selection)),
        tuple(gone),
        (*shown, *(Drop("video", None, f"sha256:{row_key(v.video_id)}", Reason.TAKEN_DOWN) for v in gone)),
        preparation,
        _document(listing.layout, preparation, selection, videos),
    )


def places(splits: Iterable[tuple[int, str]], *, per_shard: int) -> dict[int, tuple[str, int, int]]:
    """Return the split, the shard and the position in it of each numbered video with a record, in numerical order."""
    counts: dict[str, int] = {}
    found = {}
    for number, split in sorted(splits):
        place = counts.get(split, 0)
        counts[split] = place + 1
        found[number] = (split, *divmod(place, per_shard))
    return found


def split_order(splits: Iterable[str]) -> list[str]:
    """Return the distinct names of splits: "train" first, the others sorted."""
    return sorted(set(splits), key=lambda split: (split != TRAIN, split))


def _splits(videos: Iterable[SourceVideo], selection: Selection) -> Iterable[str]:
    if selection.official is None:
        named = bool(selection.heldout_people or selection.heldout_share)
        for video in videos:
            chosen = split_of(video.identity, share=selection.heldout_share, named=selection.heldout_people)
            yield chosen if named else video.split or TRAIN
        return
    found = [(video, selection.official.split_of(video)) for video in videos]
    unknown = [video.video_id for video, split in found if split is None]
    if unknown:
        raise ValueError(
            f"{selection.official.name} does not list {len(unknown)} of {len(found)} videos, such as "
            f"{', '.join(unknown[:3])}: use the list of the same data set, or remove these videos"
        )
    yield from (split for _, split in found if split is not None)


def _lies_below(path: str, takedown: Collection[str]) -> bool:
    return any(part in takedown for part in path.split("/")) or path in takedown


def _document(
    layout: Layout, preparation: dict[str, Any], selection: Selection, videos: Collection[SourceVideo]
) -> str:
    chosen = {
        "heldout_share": selection.heldout_share,
        "heldout_people": _digest(selection.heldout_people),
        "official": selection.official and selection.official.name,
        "takedown": _digest(selection.takedown),
        "name": selection.name,
        "videos": _digest([video.video_id for video in videos]),
    }
    return json.dumps({"layout": layout, **preparation, "selection": chosen}, indent=1) + "\n"


def _digest(names: Collection[str]) -> str | None:
    """Identify a list without containing its names."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest() if names else None


def _check(settings: Settings, selection: Selection) -> None:
    shard_name(selection.name, TRAIN, 0, 1)
    for what, value, least, most in (
        ("size", settings.size, 16, 4096),
        ("frames", settings.frames, 1, 4096),
        ("gap", settings.gap, 0, 3600),
        ("JPEG quality", settings.quality, 1, 100),
        ("context", settings.context, 0.5, 4),
        ("min-frames", settings.thresholds.frames, 1, settings.frames),
        ("heldout", selection.heldout_share, 0, 1),
    ):
        if not least <= value <= most:
            raise ValueError(f"{what} must be {least} to {most}, but is {value}")
    if selection.official is not None and (selection.heldout_share or selection.heldout_people):
        raise ValueError("an official split determines who is held out: remove the option --heldout")


def _check_people(listing: Listing, selection: Selection) -> None:
    missing = sorted(set(selection.heldout_people) - {video.identity for video in listing.videos})
    if missing:
        raise ValueError(f"people to hold out are not in the source: {', '.join(missing[:5])}")


def _check_backends() -> None:
    """Use each backend once: a missing extra or landmark model is then one error, not one drop per video."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(f"writing shards needs TensorFlow: {install_command('prep')}")
    pillow()
    pyav()
    blank = np.zeros((64, 64, 3), np.uint8)
    detect_faces(blank)
    landmarks_in_box(blank, Box(16, 16, 48, 48))
