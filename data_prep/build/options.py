"""Command-line options shared by `th-jax prepare build` and `th-jax prepare beam`."""

import argparse
from pathlib import Path
from typing import NamedTuple

from data_prep.build.plan import NAME, Selection
from data_prep.build.prepare_video import Settings
from data_prep.build.quality import Thresholds
from data_prep.build.sources import Layout, read_names, read_official_split
from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, ProcessLimits

_GIB = 2**30


class Chosen(NamedTuple):
    """The values of the options."""

    settings: Settings
    selection: Selection
    limits: ProcessLimits


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that determine the content of a data set."""
    add = parser.add_argument
    add("--layout", type=Layout, choices=list(Layout), default=Layout.AUTO, help="layout of the source folder")
    add("--size", type=int, default=256, help="side of the stored frames in pixels")
    add("--frames", type=int, default=Settings().frames, help="maximum number of frames of a video")
    add("--min-frames", type=int, default=Thresholds().frames, help="minimum number of usable frames of a video")
    add("--gap", type=float, default=Settings().gap, help="minimum seconds between two frames of a clip")
    add("--quality", type=int, default=Settings().quality, help="JPEG quality, 1 to 100")
    add("--context", type=float, default=Settings().context, help="values above 1 show more around the head")
    add(
        "--pupils",
        action="store_true",
        help="also detect both pupils: 70 points per frame, unknown where an eye is shut",
    )
    names = ", ".join(sorted(set(Thresholds._fields) - {"frames"}))
    add("--threshold", action="append", default=[], metavar="NAME=VALUE", help=f"threshold of a usable frame: {names}")
    # In British spelling up to version 0.1, which still works; records keep the field's name.
    add(
        "--license",
        "--licence",
        dest="licence",
        default=Settings().licence,
        metavar="LICENSE",
        help="SPDX name of the source's license, stored in every record",
    )
    add("--name", default=NAME, help="name of the data set, part of its file names")
    add("--heldout", type=_heldout, default=(0.0, ()), help="share of people to hold out, or a file with their names")
    add(
        "--official-split",
        type=Path,
        metavar="LIST",
        help="one of VoxCeleb's lists: vox1_meta.csv, iden_split.txt, ...",
    )
    add("--takedown", type=Path, metavar="LIST", help="file of people or video ids to leave out, one per line")
    limits = DEFAULT_PROCESS_LIMITS
    add("--video-seconds", type=float, default=limits.seconds, help="seconds after which a video is dropped")
    add("--video-memory", type=float, default=limits.memory / _GIB, help="address space of a worker in GiB")


def chosen(options: argparse.Namespace) -> Chosen:
    """Convert parsed options to settings.

    Raises:
        FileNotFoundError: if a list does not exist.
        ValueError: for an unknown threshold or an invalid list.
    """
    same = {
        field: getattr(options, field) for field in ("size", "frames", "gap", "quality", "context", "pupils", "licence")
    }
    share, people = options.heldout
    return Chosen(
        Settings(**same, thresholds=_thresholds(options)),
        Selection(
            options.layout,
            share,
            people,
            read_official_split(options.official_split) if options.official_split else None,
            read_names(options.takedown) if options.takedown else frozenset(),
            options.name,
        ),
        DEFAULT_PROCESS_LIMITS._replace(seconds=options.video_seconds, memory=round(options.video_memory * _GIB)),
    )


def _thresholds(options: argparse.Namespace) -> Thresholds:
    given: dict[str, float] = {}
    for text in options.threshold:
        name, _, value = text.partition("=")
        if name not in Thresholds._fields or name == "frames":
            known = ", ".join(field for field in Thresholds._fields if field != "frames")
            raise ValueError(f"unknown threshold {name!r}: use {known}")
        try:
            given[name] = type(getattr(Thresholds(), name))(value)
        except ValueError:
            raise ValueError(f"the threshold {name} must be a number, but is {value!r}") from None
    return Thresholds(**{**given, "frames": options.min_frames})


def _heldout(text: str) -> tuple[float, frozenset[str]]:
    try:
        return float(text), frozenset()
    except ValueError:
        path = Path(text)
        if not path.is_file():
            raise argparse.ArgumentTypeError(
                f"{text} is neither a share such as 0.05 nor a file with one person per line"
            ) from None
        try:
            return 0.0, read_names(path)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
