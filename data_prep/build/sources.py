"""Lists the videos of a source folder with their people, and assigns splits, including VoxCeleb's official ones.

VoxCeleb's lists are downloaded by the user from https://www.robots.ox.ac.uk/~vgg/data/voxceleb/; nothing is fetched here.
"""

import enum
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from data_prep.build.drop_report import Drop
from data_prep.build.quality import Reason
from data_prep.build.transfer import remote_files
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from th_jax.provenance.record import SIDECAR_SUFFIX
from th_jax.storage.files import is_remote
from th_jax.text import read_text

TRAIN, HELDOUT = "train", "heldout"


class Layout(enum.StrEnum):
    """Layout of a source folder."""

    AUTO = "auto"
    VIDEOS = "videos"
    """person/clip.mp4, at any depth below the person; a video beside the folders is a separate person."""
    PHOTOS = "photos"
    """person/photo.jpg, at any depth below the person; all photos of a person are one record."""
    VOXCELEB = "voxceleb"
    """id10001/video/00001.mp4 as in VoxCeleb1 and 2: the clips of a video form one record, and frames are already crops.

    The folders mp4, and dev or test, may be above, as the archives unpack; the last two determine the split."""


class SourceVideo(NamedTuple):
    """A video, or the photos of a person: the source of one record."""

    video_id: str
    identity: str
    files: tuple[str, ...]
    """Clips or photos in order, relative to the source folder, with forward slashes."""
    photos: bool = False
    cropped: bool = False
    """Whether frames are crops of a head, which are used whole."""
    split: str = ""
    """The split given by its folder; empty if there is none."""

    @property
    def path(self) -> str:
        """Return the path of the file, or of the folder of several files."""
        return self.files[0] if len(self.files) == 1 else self.files[0].rpartition("/")[0] or "."


class Listing(NamedTuple):
    """The sorted videos of a folder, and drops of the files that belong to no video."""

    layout: Layout
    videos: tuple[SourceVideo, ...]
    drops: tuple[Drop, ...]


def list_source(folder: Path | str, layout: Layout) -> Listing:
    """List the videos of a local folder or of remote storage (gs://).

    Hidden files and provenance records beside images are skipped. Links are followed, and a folder that is linked several
    times is read once.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if it has no readable files, has both videos and photos without a layout, or if a video of VoxCeleb is
            in both dev and test.
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
        layout = _recognize(folder, videos, photos)
    wanted, what = (photos, IMAGE_SUFFIXES) if layout is Layout.PHOTOS else (videos, VIDEO_SUFFIXES)
    if not wanted:
        raise ValueError(
            f"{folder} has no readable files of the layout {layout}: none of its {len(files)} files ends in "
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
            raise ValueError(f"clips of the video {video_id} are in two splits of {folder}: unpack the archives again")
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
    """Return the split of a person's videos: held out if named, or if a hash of the name is below the share.

    The hash depends only on the name: adding people moves none of the others, and a larger share includes a smaller one.

    Args:
        identity: name of the person.
        share: share of people to hold out, 0 to 1.
        named: names of people to hold out.
    """
    position = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return HELDOUT if identity in named or position < share else TRAIN


def read_names(path: Path) -> frozenset[str]:
    """Read a file with one name of a person or a video per line.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it has no names, or is not text.
    """
    names = frozenset(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise ValueError(f"{path} contains no names: a list has one name per line")
    return names


def _found(folder: Path | str) -> Iterator[tuple[str, str]]:
    """Yield each file below the folder and, if it cannot be listed, the reason."""
    if is_remote(str(folder)):
        for name in remote_files(str(folder)):
            parts = name.split("/")
            if not all(parts):  # object stores allow names that are not valid paths
                yield name, "its name is not a path"
            elif not any(part.startswith(".") for part in parts) and not name.endswith(SIDECAR_SUFFIX):
                yield name, ""
        return
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the source {folder} is not a folder: name one that contains videos, or photos of people"
        )
    yield from _walk(folder, "", set())


def _walk(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Yield each file below a folder, sorted by name, and the reason if it is a folder that cannot be read."""
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


def _recognize(folder: Path | str, videos: list[str], photos: list[str]) -> Layout:
    if videos and photos:
        raise ValueError(
            f"{folder} holds both videos ({len(videos)}) and photos ({len(photos)}): choose one with "
            "--layout videos, photos or voxceleb"
        )
    if photos:
        return Layout.PHOTOS
    # Only VoxCeleb's own names, because other data sets may have similar folders but uncropped frames.
    voxceleb = videos and all(_VOXCELEB_CLIP.fullmatch(path) for path in videos)
    return Layout.VOXCELEB if voxceleb else Layout.VIDEOS


_ARCHIVE = r"(?:(?P<split>dev|test)/)?(?:mp4/)?"
_VOXCELEB_CLIP = re.compile(_ARCHIVE + r"id\d{5}/[^/]+/\d{5}\.mp4")
_CLIP_OF_VIDEO = re.compile(_ARCHIVE + r"(?P<video>[^/]+/[^/]+)/[^/]+")
_SPLITS = {None: "", "dev": TRAIN, "test": HELDOUT}


def _video_of(path: str, layout: Layout) -> tuple[str | None, str]:
    """Return the id of a file's video, None if it belongs to no video, and the split given by its folder."""
    if layout is Layout.VIDEOS:
        return path, ""
    if layout is Layout.PHOTOS:
        return (path.partition("/")[0] if "/" in path else None), ""
    parts = _CLIP_OF_VIDEO.fullmatch(path)
    return (parts["video"], _SPLITS[parts["split"]]) if parts else (None, "")


def _unsupported(path: str, detail: str) -> Drop:
    return Drop("clip", None, path, Reason.UNSUPPORTED, detail=detail)


VALIDATION = "validation"
_CLIP = re.compile(r"(?P<person>id\d{5})/(?P<video>[^/\s]+)/\d{5}\.\w+")
_OF_NUMBER = {"1": TRAIN, "2": VALIDATION, "3": HELDOUT}
_OF_SET = {"dev": TRAIN, "test": HELDOUT}
_PERSON = re.compile(r"id\d{5}")


class OfficialSplit(NamedTuple):
    """The splits of a published list, by person or by video."""

    name: str
    """File name of the list."""
    people: Mapping[str, str]
    videos: Mapping[str, str]
    others: str | None = None
    """The split of all others; None if the list is complete."""

    def split_of(self, video: SourceVideo) -> str | None:
        """Return the split of a video; None if the list does not contain it."""
        return self.people.get(video.identity, self.videos.get(video.video_id, self.others))


def read_official_split(path: Path) -> OfficialSplit:
    """Read one of VoxCeleb's lists, identified by its content.

    * `vox1_meta.csv`, `vox2_meta.csv`: people: dev is for training, test is held out. These are 1,211 and 40 people of
      VoxCeleb1, 5,994 and 118 of VoxCeleb2.
    * `iden_split.txt`: clips of VoxCeleb1, numbered 1 (train), 2 (validation) and 3 (held out), the same for
      all clips of a video. All people are in all parts, so this split does not test on new people.
    * `veri_test.txt` and similar lists: pairs of clips; the people in them are held out, all others are for training.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is another list, or contradicts itself.
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
        f"{path} is not one of the supported VoxCeleb lists: vox1_meta.csv, vox2_meta.csv, iden_split.txt, veri_test.txt"
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"[\t,]", line)]


def _people(path: Path, header: list[str], lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    column = header.index("Set")
    for number, line in enumerate(lines, 2):
        cells = _cells(line)
        if len(cells) <= column or not _PERSON.fullmatch(cells[0]) or cells[column] not in _OF_SET:
            raise ValueError(f"line {number} of {path} contains no person with the set dev or test: {line!r}")
        yield cells[0], _OF_SET[cells[column]]


def _agreeing(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for name, split in pairs:
        if splits.setdefault(name, split) != split:
            raise ValueError(f"{path} contradicts itself: {name} is in {splits[name]} and in {split}")
    return splits
