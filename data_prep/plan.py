"""What a data set will be made of, decided before anything is decoded: which videos, in which order and split, and how."""

import hashlib
import importlib.util
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.decisive import decisive as decisive_for
from data_prep.manifest import Drop
from data_prep.prepare_video import Settings
from data_prep.quality import Reason
from data_prep.sources import TRAIN, Layout, Listing, SourceVideo, list_source, split_of
from data_prep.splits import OfficialSplit
from th_jax.data.schema import shard_name
from th_jax.data.video_list import row_key
from th_jax.faces import Box, detect_faces, landmarks_in_box
from th_jax.optional import pillow, pyav

NAME = "faces"
PREPARATION_FILE = "preparation.json"


class Selection(NamedTuple):
    """Which videos of a source go into a data set, and into which split."""

    layout: Layout = Layout.AUTO
    heldout_share: float = 0.0
    """Of the people, by a hash of their names."""
    heldout_people: Collection[str] = frozenset()
    official: OfficialSplit | None = None
    """In place of these two, and of the split that VoxCeleb's folders say."""
    takedown: Collection[str] = frozenset()
    """People, or ids of videos, to be left out."""
    name: str = NAME
    """Of the data set, in its file names."""


class Plan(NamedTuple):
    """All that is decided."""

    name: str
    videos: tuple[SourceVideo, ...]
    splits: tuple[str, ...]
    """One for each video; "train" comes first of those that there are."""
    taken_down: tuple[SourceVideo, ...]
    drops: tuple[Drop, ...]
    """Of files that no video needs, and of videos that are taken down."""
    decisive: dict[str, Any]
    """See `data_prep.decisive`."""
    document: str
    """Goes into the data set: how it was made, without the name of anybody."""


def make_plan(source: Path | str, settings: Settings, selection: Selection) -> Plan:
    """List a source and decide.

    Raises:
        FileNotFoundError: if there is no such source, or no landmark model.
        ImportError: without the extra `prep`.
        ValueError: for impossible settings or splits, or a source that holds nothing to read.
    """
    _check(settings, selection)
    listing = list_source(source, selection.layout)
    _check_people(listing, selection)
    _check_backends()
    gone = [video for video in listing.videos if {video.identity, video.video_id} & set(selection.takedown)]
    hidden = {video.video_id for video in gone}
    videos = tuple(video for video in listing.videos if video.video_id not in hidden)
    shown = tuple(drop for drop in listing.drops if not _lies_below(drop.path, selection.takedown))
    made_so = decisive_for(settings)
    return Plan(
        selection.name,
        videos,
        tuple(_splits(videos, selection)),
        tuple(gone),
        (*shown, *(Drop("video", None, f"sha256:{row_key(v.video_id)}", Reason.TAKEN_DOWN) for v in gone)),
        made_so,
        _document(listing.layout, made_so, selection, videos),
    )


def places(splits: Iterable[tuple[int, str]], *, per_shard: int) -> dict[int, tuple[str, int, int]]:
    """Split, shard and place in it of each of the numbered videos that got a record, in the order of their numbers."""
    counts: dict[str, int] = {}
    found = {}
    for number, split in sorted(splits):
        place = counts.get(split, 0)
        counts[split] = place + 1
        found[number] = (split, *divmod(place, per_shard))
    return found


def split_order(splits: Iterable[str]) -> list[str]:
    """Names of splits, each once: "train" first, the others by name."""
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
            f"{selection.official.name} does not name {len(unknown)} of {len(found)} videos, such as "
            f"{', '.join(unknown[:3])}: take the list of the same data set, or leave these videos out"
        )
    yield from (split for _, split in found if split is not None)


def _lies_below(path: str, takedown: Collection[str]) -> bool:
    return any(part in takedown for part in path.split("/")) or path in takedown


def _document(layout: Layout, decisive: dict[str, Any], selection: Selection, videos: Collection[SourceVideo]) -> str:
    chosen = {
        "heldout_share": selection.heldout_share,
        "heldout_people": _digest(selection.heldout_people),
        "official": selection.official and selection.official.name,
        "takedown": _digest(selection.takedown),
        "name": selection.name,
        "videos": _digest([video.video_id for video in videos]),
    }
    return json.dumps({"layout": layout, **decisive, "selection": chosen}, indent=1) + "\n"


def _digest(names: Collection[str]) -> str | None:
    """Tells one list from another, and names nobody."""
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
        raise ValueError("an official split says who is held out: leave the other choice away")


def _check_people(listing: Listing, selection: Selection) -> None:
    missing = sorted(set(selection.heldout_people) - {video.identity for video in listing.videos})
    if missing:
        raise ValueError(f"people named to be held out are not in the source: {', '.join(missing[:5])}")


def _check_backends() -> None:
    """Use everything once, here: an absent extra or landmark model is one sentence, not a line for every video."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError("writing shards needs TensorFlow: pip install 'th_jax[prep]'")
    pillow()
    pyav()
    blank = np.zeros((64, 64, 3), np.uint8)
    detect_faces(blank)
    landmarks_in_box(blank, Box(16, 16, 48, 48))
