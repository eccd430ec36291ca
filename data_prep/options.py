"""Options of the command lines that prepare a data set, on this machine and as a Beam pipeline."""

import argparse
from pathlib import Path
from typing import NamedTuple

from data_prep.plan import NAME, Selection
from data_prep.prepare_video import Settings
from data_prep.quality import Thresholds
from data_prep.sources import Layout, read_names
from data_prep.splits import read_official_split
from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, ProcessLimits

_GIB = 2**30


class Chosen(NamedTuple):
    """What the options say."""

    settings: Settings
    selection: Selection
    limits: ProcessLimits


def add_options(parser: argparse.ArgumentParser) -> None:
    """Everything but the source, the data set and how the work is done."""
    add = parser.add_argument
    add("--layout", type=Layout, choices=list(Layout), default=Layout.AUTO, help="how the source is arranged")
    add("--size", type=int, default=256, help="side of the stored frames, in pixels")
    add("--frames", type=int, default=Settings().frames, help="most frames of a video")
    add("--min-frames", type=int, default=Thresholds().frames, help="a video with fewer usable frames is dropped")
    add("--gap", type=float, default=Settings().gap, help="least seconds between two frames of a clip")
    add("--quality", type=int, default=Settings().quality, help="JPEG quality, 1 to 100")
    add("--context", type=float, default=Settings().context, help="above 1 shows more around the head")
    add("--pupils", action="store_true", help="find both pupils too: 70 points a frame, unknown where an eye is shut")
    names = ", ".join(sorted(set(Thresholds._fields) - {"frames"}))
    add("--threshold", action="append", default=[], metavar="NAME=VALUE", help=f"what a frame must reach: {names}")
    add("--licence", default=Settings().licence, help="SPDX name of the source's licence, kept in every record")
    add("--name", default=NAME, help="of the data set, in its file names")
    add("--heldout", type=_heldout, default=(0.0, ()), help="share of people to hold out, or a file that names them")
    add(
        "--official-split", type=Path, metavar="LIST", help="one of VoxCeleb's lists: its meta.csv, iden_split.txt, ..."
    )
    add("--takedown", type=Path, metavar="LIST", help="people, or ids of videos, to leave out, one a line")
    limits = DEFAULT_PROCESS_LIMITS
    add("--video-seconds", type=float, default=limits.seconds, help="a video that takes longer is dropped")
    add("--video-memory", type=float, default=limits.memory / _GIB, help="GiB of addresses that a worker may use")


def chosen(options: argparse.Namespace) -> Chosen:
    """The options' meaning.

    Raises:
        FileNotFoundError: if a list does not exist.
        ValueError: for a threshold that there is not, or a list that is none.
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
            raise ValueError(f"there is no threshold {name!r}, but {known}")
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
                f"{text} is neither a share such as 0.05 nor a file with one person a line"
            ) from None
        try:
            return 0.0, read_names(path)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
