"""What a folder of raw material holds: its videos with their people, in one order, by the layout of the folder."""

import enum
import hashlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.manifest import Drop
from data_prep.quality import Reason
from data_prep.transfer import remote_files
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from th_jax.provenance.record import SIDECAR_SUFFIX
from th_jax.storage.files import is_remote
from th_jax.text import read_text

TRAIN, HELDOUT = "train", "heldout"


class Layout(enum.StrEnum):
    """How a folder is arranged."""

    AUTO = "auto"
    VIDEOS = "videos"
    """person/clip.mp4, at any depth below the person; a video beside the folders is a person of its own."""
    PHOTOS = "photos"
    """person/photo.jpg, at any depth below the person; all photos of a person are one record."""
    VOXCELEB = "voxceleb"
    """id10001/video/00001.mp4 as in VoxCeleb1 and 2: the clips of a video are one record, frames are crops already.

    Above it may stand mp4, and dev or test, as the archives unpack: these two say which videos are held out."""


class SourceVideo(NamedTuple):
    """What becomes one record."""

    video_id: str
    identity: str
    files: tuple[str, ...]
    """Clips, or photos, in order: relative to the source folder, with forward slashes."""
    photos: bool = False
    cropped: bool = False
    """Whether its frames show a head and no more, and are taken whole."""
    split: str = ""
    """The split that its folder says; empty if it says none."""

    @property
    def path(self) -> str:
        """Where it lies: its file, or the folder of its files."""
        return self.files[0] if len(self.files) == 1 else self.files[0].rpartition("/")[0] or "."


class Listing(NamedTuple):
    """The videos of a folder, sorted, and the files that belong to none."""

    layout: Layout
    videos: tuple[SourceVideo, ...]
    drops: tuple[Drop, ...]


def list_source(folder: Path | str, layout: Layout) -> Listing:
    """The videos of a folder, or of an address that fsspec knows (gs://).

    Hidden files and the records of provenance beside pictures are passed over. Links are followed, a folder that is
    linked several times is read once.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds nothing to read, both videos and photos and no layout is named, or a video of VoxCeleb
            lies below dev and test.
    """
    files, drops = [], []
    for path, fault in _found(folder):
        if not path.isprintable():
            drops.append(_unsupported(ascii(path), "its name cannot be printed"))
        elif fault:
            drops.append(Drop("clip", None, path, Reason.UNDECODABLE, detail=fault))
        else:
            files.append(path)
    videos = [path for path in files if _suffix(path) in VIDEO_SUFFIXES]
    photos = [path for path in files if _suffix(path) in IMAGE_SUFFIXES]
    if layout is Layout.AUTO:
        layout = _recognise(folder, videos, photos)
    wanted, what = (photos, IMAGE_SUFFIXES) if layout is Layout.PHOTOS else (videos, VIDEO_SUFFIXES)
    if not wanted:
        raise ValueError(
            f"{folder} holds nothing to read in the layout {layout}: of {len(files)} files none ends in "
            f"{', '.join(what)}"
        )
    chosen = set(wanted)
    drops += [_unsupported(path, f"no file of the layout {layout}") for path in files if path not in chosen]
    groups: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for path in wanted:
        video_id, split = _video_of(path, layout)
        if video_id is None:
            drops.append(_unsupported(path, f"it does not lie where the layout {layout} has its files"))
        elif splits.setdefault(video_id, split) != split:
            raise ValueError(f"clips of the video {video_id} lie in two splits of {folder}: unpack the archives anew")
        else:
            groups.setdefault(video_id, []).append(path)
    found = [
        SourceVideo(
            video_id,
            Path(video_id).stem if "/" not in video_id and layout is Layout.VIDEOS else video_id.partition("/")[0],
            tuple(sorted(paths)),
            photos=layout is Layout.PHOTOS,
            cropped=layout is Layout.VOXCELEB,
            split=splits[video_id],
        )
        for video_id, paths in sorted(groups.items())
    ]
    return Listing(layout, tuple(found), tuple(sorted(drops, key=lambda drop: drop.path)))


def split_of(identity: str, *, share: float = 0.0, named: Collection[str] = ()) -> str:
    """The split of all videos of a person: held out if named, or by a hash that falls below the share (0 to 1).

    The hash depends on the name alone: adding people moves nobody, and a larger share keeps those of a smaller one.
    """
    position = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return HELDOUT if identity in named or position < share else TRAIN


def read_names(path: Path) -> frozenset[str]:
    """The names in a file that has one a line: of people, or of videos.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds none, or is no text.
    """
    names = frozenset(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise ValueError(f"{path} names nobody: a list has one name a line")
    return names


def _found(folder: Path | str) -> Iterator[tuple[str, str]]:
    """Each file below the folder and, if it cannot be listed, why."""
    if is_remote(str(folder)):
        for name in remote_files(str(folder)):
            parts = name.split("/")
            if not all(parts):  # object stores allow names that no path below a folder can have
                yield name, "its name is no path"
            elif not any(part.startswith(".") for part in parts) and not name.endswith(SIDECAR_SUFFIX):
                yield name, ""
        return
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the source {folder} is no folder: name one that holds videos, or photos of people")
    yield from _walk(folder, "", set())


def _walk(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Each file below a folder and, if it is a folder that cannot be read, why; sorted by name in each folder."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        yield prefix.rstrip("/") or ".", f"the folder cannot be read: {error.strerror}"
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(SIDECAR_SUFFIX):
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/", seen)
        else:
            yield prefix + entry.name, ""


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()


def _recognise(folder: Path | str, videos: list[str], photos: list[str]) -> Layout:
    if videos and photos:
        raise ValueError(
            f"{folder} holds both videos ({len(videos)}) and photos ({len(photos)}): say which are meant by "
            "--layout videos, photos or voxceleb"
        )
    if photos:
        return Layout.PHOTOS
    # Only VoxCeleb's own names: the folders of somebody else's clips may look alike, with frames that are no crops.
    voxceleb = videos and all(_VOXCELEB_CLIP.fullmatch(path) for path in videos)
    return Layout.VOXCELEB if voxceleb else Layout.VIDEOS


_ARCHIVE = r"(?:(?P<split>dev|test)/)?(?:mp4/)?"
_VOXCELEB_CLIP = re.compile(_ARCHIVE + r"id\d{5}/[^/]+/\d{5}\.mp4")
_CLIP_OF_VIDEO = re.compile(_ARCHIVE + r"(?P<video>[^/]+/[^/]+)/[^/]+")
_SPLITS = {None: "", "dev": TRAIN, "test": HELDOUT}


def _video_of(path: str, layout: Layout) -> tuple[str | None, str]:
    """The id of the video that a file belongs to, if to any, and the split that its folder says."""
    if layout is Layout.VIDEOS:
        return path, ""
    if layout is Layout.PHOTOS:
        return (path.partition("/")[0] if "/" in path else None), ""
    parts = _CLIP_OF_VIDEO.fullmatch(path)
    return (parts["video"], _SPLITS[parts["split"]]) if parts else (None, "")


def _unsupported(path: str, detail: str) -> Drop:
    return Drop("clip", None, path, Reason.UNSUPPORTED, detail=detail)
