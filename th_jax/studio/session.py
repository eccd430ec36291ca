"""The studio's operations, which the page calls, as functions of files and text: drafts, avatars, drives, edits, checks."""

import contextlib
import html
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from th_jax.avatars.examples import PEOPLE
from th_jax.avatars.file import LoadedAvatar, load_avatar
from th_jax.avatars.requests import PersonRequest, check_name
from th_jax.consent import check_driving, revoke_consent
from th_jax.media.isolation import Sandbox
from th_jax.studio.drives import (
    DRIVERS,
    DriveSettings,
    animate_command,
    drive,
    edit,
    edit_command,
    edit_text,
    example_driver,
    usable_driver,
)
from th_jax.studio.folder import StudioFolder, shots_in, store_shots, stored_name
from th_jax.studio.jobs import Job, JobQueue
from th_jax.studio.live import Live, LiveView, driven_frames
from th_jax.studio.making import ConsentForm, finetune_command, make_avatar, prepare_example, prepare_person
from th_jax.studio.origin import Origin, origin_of
from th_jax.studio.shots import Tile, camera_frame, tiles
from th_jax.weights import MetaModel, load_meta

EXAMPLE_DRIVER = next(iter(DRIVERS))

BOTH = "avatar and video"
"""Start of the title of a job that makes both; others start with "avatar" or "video"."""


class Studio:
    """One studio: its folder, its weights, and its queue of jobs."""

    def __init__(self, root: Path, *, meta: str = "heads") -> None:
        """Open the folder.

        Raises:
            ValueError: if another studio uses it.
            OSError: if it cannot be created.
        """
        self.folder = StudioFolder(root)
        self.meta_name = meta
        self.jobs = JobQueue()
        self._sandbox, self._camera = Sandbox(), Sandbox()
        self._live: tuple[tuple[str, int], Live] | None = None
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._meta: MetaModel | None = None
        self._loaded: dict[str, tuple[int, LoadedAvatar]] = {}
        self._pending: set[str] = set()
        """Names of avatars that are being made."""
        self.commands: dict[int, str] = {}
        """Equivalent command line of each job."""
        self.drivers: dict[int, Path] = {}
        """Driver of each drive."""

    def close(self) -> None:
        """Cancel the jobs and unlock the folder."""
        self.stop_live()
        self.jobs.close()
        self._sandbox.close()
        self._camera.close()
        self.folder.close()

    def meta(self) -> MetaModel:
        """Load the meta weights once."""
        with self._loading:
            if self._meta is None:
                self._meta = load_meta(self.meta_name)
            return self._meta

    def avatar(self, name: str) -> LoadedAvatar:
        """Load an avatar, or return it if the file is unchanged.

        Raises:
            ValueError: if there is none of this name, or its file is damaged.
        """
        path = self.folder.known(name)
        changed = path.stat().st_mtime_ns
        kept = self._loaded.get(name)
        if kept is None or kept[0] != changed:
            kept = changed, load_avatar(path)
            self._loaded = {name: kept}
        return kept[1]

    def draft(self, files: Sequence[str | Path]) -> tuple[str, Iterator[Tile]]:
        """Store uploaded images as a draft; returns its token, and its tiles as they are examined.

        Raises:
            ValueError: if the files are not photos or one video.
        """
        token = self.store(files)
        return token, tiles(shots_in(self.folder.drafts / token), run=self._sandbox.run)

    def store(self, files: Sequence[str | Path]) -> str:
        """Store images as a draft, and return its token.

        Raises:
            ValueError: as `draft`.
        """
        token = secrets.token_hex(8)
        store_shots([Path(file) for file in files], self.folder.drafts / token)
        return token

    def create(self, token: str, name: str, form: ConsentForm) -> Job:
        """Record the consent, and fine-tune an avatar of a draft in a job.

        Raises:
            ValueError: if there is no draft, the name is taken or invalid, or the form is incomplete.
        """
        if len(token) != 16 or not token.isalnum():
            raise ValueError("there are no images: drop photos or a video first")
        name = check_name(name.strip())
        with self._reserved(name):
            person = prepare_person(self.folder, name, self.folder.drafts / token, form)
            return self._make(person, draft=token)

    def example(self, name: str) -> Job:
        """Make the avatar of a bundled person in a job.

        Raises:
            ValueError: if the name is unknown, or the avatar exists.
        """
        if self.folder.avatar(name).exists():  # also checks the name
            raise ValueError(f"the avatar {name!r} is in the gallery already")
        with self._reserved(name):
            return self._make(prepare_example(self.folder, name))

    @contextlib.contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """Reserve a name for the avatar of a new job; the job releases it, or an error before it begins."""
        with self._lock:
            if name in self._pending:
                raise ValueError(f"the avatar {name!r} is being made already")
            self._pending.add(name)
        try:
            yield
        except BaseException:
            self._release(name)
            raise

    def _release(self, name: str) -> None:
        """Release a name; without an avatar, its images and consent record are deleted."""
        if not self.folder.avatar(name).exists():
            self.folder.forget(name)
        self._pending.discard(name)

    def _make(self, person: PersonRequest, *, draft: str = "") -> Job:
        def work(job: Job) -> tuple[Path | None, str]:
            text = make_avatar(job, self.folder, person, weights=self.meta)
            self.discard(draft)
            return self.folder.avatar(person.name), text

        job = self.jobs.submit(f"avatar {person.name}", work, on_end=lambda: self._release(person.name))
        self.commands[job.number] = finetune_command(self.folder, person, meta=self.meta_name)
        return job

    def drive(
        self, avatar: str, settings: DriveSettings, *, upload: str | Path | None = None, example: str | None = None
    ) -> Job:
        """Drive an avatar in a job, with an uploaded driver or a bundled one.

        Raises:
            ValueError: if the avatar, the driver or a setting is invalid.
            ConsentError: if the avatar's consent has expired or was revoked.
        """
        settings.checked()
        path = self.folder.known(avatar)
        check_driving(self.avatar(avatar).description, consents=self.folder.consents)
        if upload is not None:
            given = Path(upload)
            stem = f"{secrets.token_hex(8)}_{stored_name(1, given.stem)}"
            driver = usable_driver(given, self.folder.drivers, stem, run=self._sandbox.run)
        elif example is not None:
            driver = example_driver(example, self.folder.drivers)
        else:
            raise ValueError("there is no driver: drop a file, or choose a bundled one")
        out = self.folder.result(avatar, settings.suffix)

        def work(job: Job) -> tuple[Path | None, str]:
            return drive(job, self.avatar(avatar), driver, out, settings, consents=self.folder.consents)

        job = self.jobs.submit(f"video of {avatar}", work)
        self.commands[job.number] = animate_command(path, driver, out, settings, consents=self.folder.consents)
        self.drivers[job.number] = driver
        return job

    def one_click(self) -> Job:
        """Drive the bundled rendered head with a bundled video; its avatar is made first if necessary."""
        name = next(iter(PEOPLE))
        if self.folder.avatar(name).exists():
            return self.drive(name, DriveSettings(), example=EXAMPLE_DRIVER)
        with self._reserved(name):
            return self._make_and_drive(prepare_example(self.folder, name))

    def _make_and_drive(self, person: PersonRequest) -> Job:
        name = person.name
        driver, settings = example_driver(EXAMPLE_DRIVER, self.folder.drivers), DriveSettings()
        out = self.folder.result(name, settings.suffix)

        def work(job: Job) -> tuple[Path | None, str]:
            make_avatar(job, self.folder, person, weights=self.meta)
            return drive(job, self.avatar(name), driver, out, settings, consents=self.folder.consents)

        job = self.jobs.submit(f"{BOTH} of {name}", work, on_end=lambda: self._release(name))
        made = finetune_command(self.folder, person, meta=self.meta_name)
        driven = animate_command(self.folder.avatar(name), driver, out, settings, consents=self.folder.consents)
        self.commands[job.number], self.drivers[job.number] = f"{made}\n{driven}", driver
        return job

    def edit(self, avatar: str, values: Mapping[str, float]) -> tuple[Path, str]:
        """Write a still for the values of the sliders; returns it, and the equivalent command line.

        Raises:
            ValueError: if the avatar or a value is invalid.
            ConsentError: if the avatar's consent has expired or was revoked.
        """
        text = edit_text(values)
        loaded, out = self.avatar(avatar), self.folder.result(avatar, ".png")
        made = edit(loaded, text, out, consents=self.folder.consents)
        command = edit_command(self.folder.avatar(avatar), text, out, consents=self.folder.consents)
        return made, command

    def live(self, avatar: str, frame: str | Path, *, mirror: bool = False) -> LiveView:
        """Drive an avatar with the newest frame of a camera, and return its newest picture; one avatar at a time.

        Args:
            avatar: name of the avatar.
            frame: image file, which is deleted.
            mirror: whether left and right of the frame are exchanged.

        Raises:
            ValueError, MediaError: if there is no such avatar, or the frame cannot be read.
            ConsentError: if the avatar's consent has expired or was revoked.
        """
        frame = Path(frame)
        try:
            pixels = np.asarray(self._camera.run(camera_frame, str(frame)))
        finally:
            if frame.resolve().is_relative_to(self.folder.uploads):
                frame.unlink(missing_ok=True)
        # By its file and not its contents: `avatar` keeps one, which another tab may have replaced.
        key = avatar, self.folder.known(avatar).stat().st_mtime_ns
        with self._lock:
            if self._live is None or self._live[0] != key or self._live[1].ended:
                loaded = self.avatar(avatar)
                check_driving(loaded.description, consents=self.folder.consents)
                if self._live is not None:
                    self._live[1].close()
                self._live = key, Live(driven_frames(loaded))
            running = self._live[1]
        running.put(np.ascontiguousarray(pixels[:, ::-1] if mirror else pixels))
        return running.view()

    def stop_live(self) -> None:
        """End the live avatar; the next frame starts over, with a new neutral expression."""
        with self._lock:
            if self._live is not None:
                self._live[1].close()
            self._live = None

    def verify(self, file: str | Path) -> Origin:
        """Look for marks in any file."""
        return origin_of(Path(file), run=self._sandbox.run)

    def forget(self, name: str) -> str:
        """Delete an avatar with everything that belongs to it.

        Raises:
            ValueError: if the name is not a valid one, or the avatar is being made.
        """
        if name in self._pending:
            raise ValueError(f"the avatar {name!r} is being made: cancel its job first")
        self.stop_live()
        self.folder.forget(name)
        self._loaded.pop(name, None)
        return f"{name} was deleted, with its images, consent record, previews and results"

    def revoke(self, name: str) -> str:
        """Mark an avatar's consent as revoked.

        Raises:
            ConsentError: if there is no record.
        """
        record = revoke_consent(self.folder.consent(name))
        self.stop_live()
        return f"the consent for {name} was revoked on {record.revoked}: it can no longer be driven"

    def discard(self, token: str) -> None:
        """Delete a draft."""
        if len(token) == 16 and token.isalnum():
            shutil.rmtree(self.folder.drafts / token, ignore_errors=True)


def table_of(jobs: Sequence[tuple[int, str, str]]) -> str:
    """Return an HTML table of jobs: number, title and progress, with everything escaped."""
    if not jobs:
        return "<p>No jobs yet.</p>"
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in jobs
    )  # fmt: skip
    return f"<table><thead><tr><th>Job</th><th>What</th><th>Progress</th></tr></thead><tbody>{rows}</tbody></table>"
