"""The studio's folder: avatars with their cards, images, consent records, drafts and results."""

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from th_jax.avatars.file import AvatarError, read_tensors
from th_jax.avatars.preview import PREVIEWS
from th_jax.avatars.requests import check_name
from th_jax.consent import ConsentError, check_valid, facts_of, read_consent
from th_jax.consent.record import RECORD_SUFFIX
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from th_jax.provenance import sidecar_path
from th_jax.provenance.record import SIDECAR_SUFFIX

DATABASE_FILE, LOCK_FILE, USERS = "jobs.sqlite", ".lock", "users"
"""Names within the folder of a studio; below `USERS`, each user has a folder of their own."""

AVATARS, SHOTS, CONSENTS, DRAFTS = "avatars", "shots", "consents", "drafts"
RESULTS, DRIVERS, UPLOADS, POINTS = "results", "drivers", "uploads", "points"
"""Folders within a user's folder."""

DRAFT_SECONDS = 24 * 3600.0
"""Age in seconds from which on drafts are deleted."""

MIN_FREE_BYTES = 2**30
"""Space that uploads leave on the disk, in bytes."""

MAX_FILES = 200
"""Maximum number of images of a draft."""


class DiskFull(OSError):
    """There is not enough space for another upload, on the disk or in what a user may fill of it."""


class Card(NamedTuple):
    """What the gallery shows of an avatar."""

    name: str
    path: Path
    preview: Path | None
    shots: int
    steps: int
    scores: tuple[float, ...]
    """Scores of early stopping, relative to the feed-forward avatar's 1; the first is that of step 0."""
    digest: str
    subject: str
    consent: str
    """Basis, end and state of the consent."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The card in lines of text."""
        best = f", best held-out score {min(self.scores):.3g} (feed-forward: 1)" if self.scores else ""
        return (
            f"{self.name}: {self.subject}",
            f"{self.shots} shots, {self.steps} fine-tuning steps{best}",
            f"consent: {self.consent}",
            f"sha256 {self.digest}",
        )


class StudioFolder:
    """Paths within a user's folder; only one studio uses a folder at a time."""

    def __init__(self, root: Path, *, most_bytes: int | None = None, locked: bool = True) -> None:
        """Create the folder, lock it, and delete old drafts and uploads.

        Args:
            root: the folder.
            most_bytes: size from which on nothing is added to it.
            locked: False in a worker of the studio that has locked it.

        Raises:
            OSError: if the folder cannot be created.
            ValueError: if another studio uses it.
        """
        self.root, self._most_bytes = root.absolute(), most_bytes
        self.avatars, self.shots, self.consents = (self.root / name for name in (AVATARS, SHOTS, CONSENTS))
        self.drafts, self.results, self.drivers = (self.root / name for name in (DRAFTS, RESULTS, DRIVERS))
        self.uploads, self.points = self.root / UPLOADS, self.root / POINTS
        for folder in (
            self.avatars, self.shots, self.consents, self.drafts, self.results, self.drivers, self.uploads, self.points
        ):  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self._lock = lock_of(self.root) if locked else None
        self._giving, self._given = threading.Lock(), set[Path]()
        self._contents_of: dict[str, tuple[int, dict[str, Any], str]] = {}
        if locked:
            self.delete_old_drafts(time.time())

    def close(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.release()

    def delete_old_drafts(self, now: float) -> None:
        """Delete drafts and uploads that were not used for a day.

        Args:
            now: time in seconds since 1970.
        """
        for folder in (self.drafts, self.uploads):
            delete_old_files(folder, now)

    def check_space(self, *, incoming: int = 0) -> None:
        """Check that there is space for another upload.

        Args:
            incoming: size of the upload in bytes, as far as it is known.

        Raises:
            DiskFull: if there is not.
        """
        free = shutil.disk_usage(self.root).free - incoming
        if free < MIN_FREE_BYTES:
            raise DiskFull(
                f"the disk of the studio's folder would have only {max(free, 0) // 2**20} MiB left, less than "
                f"{MIN_FREE_BYTES // 2**20}: delete something"
            )
        if self._most_bytes is not None and (filled := self.filled_bytes() + incoming) > self._most_bytes:
            raise DiskFull(
                f"your folder would have {filled / 2**30:.3f} GiB of the {self._most_bytes / 2**30:.5g} GiB that are allowed: "
                "delete avatars or results"
            )

    def filled_bytes(self) -> int:
        """Return the size of all files of the folder."""
        total = 0
        for folder, _, files in os.walk(self.root):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def avatar(self, name: str) -> Path:
        """Path of an avatar.

        Raises:
            ValueError: if the name is not a valid one.
        """
        return self.avatars / f"{check_name(name)}.safetensors"

    def consent(self, name: str) -> Path:
        """Path of a consent record.

        Raises:
            ValueError: if the name is not a valid one.
        """
        return self.consents / f"{check_name(name)}{RECORD_SUFFIX}"

    def landmarks(self, name: str) -> Path:
        """Path of the points that were placed by hand on a person's photo.

        Raises:
            ValueError: if the name is not a valid one.
        """
        return self.points / f"{check_name(name)}.txt"

    def known(self, name: str) -> Path:
        """Path of an avatar that exists.

        Raises:
            ValueError: if there is none of this name.
        """
        path = self.avatar(name)
        if not path.is_file():
            raise ValueError(f"there is no avatar {name!r}: choose one of the gallery")
        return path

    def previews(self, name: str) -> list[Path]:
        """Previews of an avatar, in order of their steps."""
        return sorted((self.avatars / PREVIEWS / check_name(name)).glob("*.png"))

    def people(self) -> set[str]:
        """Names of the people whose images are kept."""
        return {path.name for path in self.shots.iterdir()}

    def within(self, path: Path) -> str:
        """Return a path relative to the folder."""
        return path.relative_to(self.root).as_posix()

    def result(self, avatar: str, suffix: str) -> Path:
        """Path of a new result, which is given once."""
        stem = f"{check_name(avatar)}-{time.strftime('%Y%m%d-%H%M%S')}"
        with self._giving:
            for number in range(1, 10_000):
                path = self.results / f"{stem}-{number:02}{suffix}"
                if path not in self._given and not path.exists() and not sidecar_path(path).exists():
                    self._given.add(path)
                    return path
        raise ValueError(f"{self.results} has too many results: delete some")

    def names(self) -> list[str]:
        """Names of the avatars."""
        return sorted(path.stem for path in self.avatars.glob("*.safetensors") if path.name[0] != ".")

    def cards(self) -> list[Card]:
        """Cards of the avatars; unreadable files are left out."""
        cards = []
        for name in self.names():
            try:
                cards.append(self.card(name))
            except (AvatarError, OSError):
                continue
        return cards

    def card(self, name: str) -> Card:
        """Card of one avatar.

        Raises:
            AvatarError, OSError: if the file cannot be read.
        """
        path = self.avatar(name)
        described, digest = self._contents(path)
        previews = self.previews(name)
        subject, consent = self._consent_of(name, described)
        scores = tuple(float(score) for score in described.get("held_out_scores", ()))
        return Card(
            name, path, previews[-1] if previews else None, int(described.get("shots", 0)),
            int(described.get("steps", 0)), scores, digest, subject, consent,
        )  # fmt: skip

    def _contents(self, path: Path) -> tuple[dict[str, Any], str]:
        """Return an avatar's description and digest, read once for each version of the file."""
        changed, kept = path.stat().st_mtime_ns, self._contents_of.get(path.name)
        if kept is None or kept[0] != changed:
            _, described, digest = read_tensors(path)
            kept = self._contents_of[path.name] = changed, described, digest
        return kept[1], kept[2]

    def _consent_of(self, name: str, described: dict[str, Any]) -> tuple[str, str]:
        """Return the subject and the state of an avatar's consent."""
        try:
            facts = facts_of(described)
            record = read_consent(self.consent(name))
        except ConsentError as error:
            return "", f"not usable: {error}"
        if facts is None or facts.digest != record.digest:
            return "", "not usable: the record does not belong to this avatar"
        until = f"until {record.expires}" if record.expires else "without an end"
        try:
            check_valid(record)
        except ConsentError as error:
            return record.subject, str(error)
        return record.subject, f"{record.basis}, {until}" + (f", {record.scope}" if record.scope else "")

    def old_results(self, *, before: float) -> list[Path]:
        """Return the results that were written before a time, without the records beside them.

        Args:
            before: time in seconds since 1970.
        """
        old = []
        for path in self.results.iterdir():
            with contextlib.suppress(FileNotFoundError):  # what is being written has another name
                if path.stat().st_mtime < before and path.name[0] != "." and not path.name.endswith(SIDECAR_SUFFIX):
                    old.append(path)
        return sorted(old)

    def forget(self, name: str, *, results: bool = True) -> None:
        """Delete an avatar with its previews, images and consent record.

        Args:
            name: name of the avatar.
            results: whether to delete its videos and stills, too.

        Raises:
            ValueError: if the name is not a valid one.
            OSError: if a file cannot be deleted.
        """
        check_name(name)
        for result in self.results.iterdir() if results else ():
            if re.fullmatch(re.escape(name) + r"-\d{8}-\d{6}-\d\d+\..*", result.name):
                result.unlink(missing_ok=True)
        for folder in (self.avatars / PREVIEWS / name, self.shots / name):  # before the record that they need
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
        for file in (self.avatar(name), self.consent(name), self.landmarks(name)):
            file.unlink(missing_ok=True)


def delete_old_files(folder: Path, now: float) -> None:
    """Delete what was put into a folder more than a day ago.

    Args:
        folder: folder of drafts or uploads.
        now: time in seconds since 1970.
    """
    for old in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a request that ended in the meantime
            if now - old.stat().st_mtime <= DRAFT_SECONDS:
                continue
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:  # an upload that was cut off
                old.unlink(missing_ok=True)


def lock_of(root: Path) -> FileLock:
    """Lock a folder for one studio.

    Raises:
        ValueError: if another studio uses it.
    """
    lock = FileLock(root / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another studio uses {root}: close it, or choose another --folder") from None
    return lock


def stored_name(number: int, given: str) -> str:
    """Name under which an uploaded file is stored: without folders and special characters, unique by its number."""
    plain = re.sub(r"[^A-Za-z0-9_.\-]+", "_", given.replace("\\", "/").rsplit("/", 1)[-1])[-80:]
    return f"{number:03}_{plain.lstrip('.-') or 'file'}"


def store_shots(files: Sequence[Path], folder: Path) -> Path:
    """Copy uploaded photos or a video into a folder, and return the path of the shots: the folder, or the video.

    Raises:
        ValueError: if there are no files, too many, several videos, videos among photos, or other types of file.
        OSError: if a file cannot be copied.
    """
    if not 1 <= len(files) <= MAX_FILES:
        raise ValueError(f"give 1 to {MAX_FILES} photos, or one video, got {len(files)} files")
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    if videos and len(files) > 1:
        raise ValueError("give either photos or a single video")
    for file in files:
        if not videos and file.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(
                f"{file.name[:100]!a} is neither a photo ({', '.join(IMAGE_SUFFIXES)}) nor a video "
                f"({', '.join(VIDEO_SUFFIXES)})"
            )
    folder.mkdir(parents=True)
    stored = [Path(shutil.copyfile(file, folder / stored_name(n, file.name))) for n, file in enumerate(files, 1)]
    return stored[0] if videos else folder


def shots_in(folder: Path) -> Path:
    """Return the path of the shots that `store_shots` left in a folder."""
    files = sorted(folder.iterdir())
    return files[0] if len(files) == 1 and files[0].suffix.lower() in VIDEO_SUFFIXES else folder


def single_photo(folder: Path) -> Path:
    """Return the photo of a folder of one.

    Raises:
        ValueError: if there are several images, or it is a video.
    """
    files = list(folder.iterdir()) if folder.is_dir() else []
    if len(files) != 1 or files[0].suffix.lower() in VIDEO_SUFFIXES:
        raise ValueError("points are placed on a single photo: drop one photo alone")
    return files[0]
