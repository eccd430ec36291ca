"""The studio's operations, which the page calls, as functions of files and text: drafts, avatars, drives, edits, checks."""

import contextlib
import html
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from th_jax.avatars.examples import PEOPLE
from th_jax.avatars.file import LoadedAvatar, load_avatar
from th_jax.avatars.requests import PersonRequest, check_name
from th_jax.consent import check_driving, revoke_consent
from th_jax.driving.driver import declared_length
from th_jax.driving.motion import write_motion
from th_jax.media import VIDEO_SUFFIXES
from th_jax.media.isolation import Sandbox
from th_jax.provenance import sidecar_path
from th_jax.studio.drives import (
    DRIVERS,
    DriveSettings,
    animate_command,
    drive,
    edit,
    edit_command,
    edit_text,
    example_driver,
    keyframe_motion,
    usable_driver,
)
from th_jax.studio.folder import DATABASE_FILE, UPLOADS, StudioFolder, shots_in, single_photo, store_shots, stored_name
from th_jax.studio.jobs import Job, JobQueue, Kind, Request, UserJobs, Work
from th_jax.studio.limits import NO_LIMITS, Limits, Rate
from th_jax.studio.live import Live, LiveView, driven_frames
from th_jax.studio.making import ConsentForm, finetune_command, make_avatar, prepare_example, prepare_person
from th_jax.studio.origin import Origin, origin_of
from th_jax.studio.points import NEEDED, Placed, Points, proposed
from th_jax.studio.shots import Tile, camera_frame, tiles
from th_jax.weights import MetaModel, load_meta

EXAMPLE_DRIVER = next(iter(DRIVERS))


_LIVE_PATIENCE = 5.0
"""Seconds that the current frame of a live avatar may take when the studio ends."""


class Shared:
    """What the studios of several users share: the database of jobs, the weights, and the isolated processes."""

    def __init__(self, root: Path, work_of: Callable[[Job], Work]) -> None:
        """Open the database.

        Args:
            root: folder of the database and of what the page uploads.
            work_of: how a job is done.

        Raises:
            ValueError, OSError: if the database is damaged or cannot be opened.
        """
        self.uploads = (root / UPLOADS).resolve()
        self.queue = JobQueue(root / DATABASE_FILE, work_of)
        self.sandbox, self.camera = Sandbox(), Sandbox()
        self._loading = threading.Lock()
        self._meta: tuple[str, MetaModel] | None = None

    def meta(self, name: str) -> MetaModel:
        """Load meta weights once."""
        with self._loading:
            if self._meta is None or self._meta[0] != name:
                self._meta = name, load_meta(name)
            return self._meta[1]

    def close(self) -> bool:
        """Interrupt the jobs of this process, and return whether they have ended."""
        ended = self.queue.close()
        self.sandbox.close()
        self.camera.close()
        return ended


class Studio:
    """One user's studio: a folder, the jobs on it, and limits."""

    def __init__(
        self,
        root: Path,
        *,
        meta: str = "heads",
        limits: Limits = NO_LIMITS,
        shared: Shared | None = None,
        user: str = "",
        serves: bool = True,
    ) -> None:
        """Open the folder.

        Args:
            root: the folder.
            meta: meta weights of new avatars.
            limits: limits of the user.
            shared: what is shared with other users; without, this studio has a database of its own and works on it.
            user: name of the user.
            serves: False in a worker, which only does jobs.

        Raises:
            ValueError: if another studio uses the folder.
            OSError: if it cannot be created.
        """
        self.folder = StudioFolder(root, most_bytes=limits.disk_bytes, locked=serves)
        self.meta_name, self._limits = meta, limits
        self._rate = Rate("jobs", limits.jobs, 3600.0)
        self._shared = shared or Shared(self.folder.root, self.work_of)
        self._alone = shared is None
        self.jobs = UserJobs(self._shared.queue, user=user)
        self._sandbox, self._camera = self._shared.sandbox, self._shared.camera
        self._live: tuple[tuple[str, int], Live] | None = None
        self._replaced: list[Live] = []
        """Live avatars that were requested to end."""
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[int, LoadedAvatar]] = {}
        self._preparing = set[str]()
        """Names of avatars whose job is about to be submitted."""
        if serves:
            for name in self.folder.people() - self._pending():
                with contextlib.suppress(ValueError, OSError):  # not a name, or not to be deleted: of another program
                    self._release(name)  # what a process that was killed left of an avatar
        if self._alone:
            self._shared.queue.start()

    def close(self) -> bool:
        """End the studio; what is not finished is continued at the next start.

        Returns:
            Whether the running job and the live avatar have ended. One that compiles a program only notices later; the process
            can be killed. If it ended by itself meanwhile, it would crash.
        """
        self.stop_live()
        ended = self._shared.close() if self._alone else True
        until = time.monotonic() + _LIVE_PATIENCE
        ended &= all([one.join(max(0.0, until - time.monotonic())) for one in self._replaced])
        self.folder.close()
        return ended

    def meta(self, name: str) -> MetaModel:
        """Load meta weights once."""
        return self._shared.meta(name)

    def work_of(self, job: Job) -> Work:
        """Return how a job of this user is done."""
        return {
            Kind.AVATAR: Work(self._avatar_work, self._release_avatar),
            Kind.VIDEO: Work(self._video_work),
            Kind.BOTH: Work(self._both_work, self._release_avatar),
        }[job.request.kind]

    def _pending(self) -> set[str]:
        """Return the names of avatars that are being made."""
        return {
            job.request.avatar for job in self.jobs.unended() if job.request.kind is not Kind.VIDEO
        } | self._preparing

    def check_upload(self, *, incoming: int = 0) -> None:
        """Check that files may be added, before they are written.

        Args:
            incoming: their size in bytes, as far as it is known.

        Raises:
            DiskFull: if there is not enough space.
        """
        self.folder.check_space(incoming=incoming)

    def check_job(self) -> None:
        """Check that another job may begin, before anything is prepared for it.

        Raises:
            TooMany: if it may not; QueueFull if too many jobs are waiting.
            DiskFull: if there is not enough space.
        """
        self._rate.check()
        self.jobs.check()
        self.folder.check_space()

    def _submit(self, request: Request) -> Job:
        self._rate.check(count=True)
        return self.jobs.submit(request)

    def _check_seconds(self, video: Path) -> None:
        """Check the length that a video's headers declare; those that declare none, or a wrong one, are cut later."""
        most = self._limits.seconds
        if most is None or video.suffix.lower() not in VIDEO_SUFFIXES:
            return
        seconds, _ = self._sandbox.run(declared_length, str(video))
        if seconds > most:
            raise ValueError(f"the video lasts {seconds:.0f} s, but at most {most:g} s are allowed here: cut it")

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
            DiskFull: if there is not enough space.
        """
        given = [Path(file) for file in files]
        self.check_upload(incoming=sum(path.stat().st_size for path in given if path.is_file()))
        if len(given) == 1:
            self._check_seconds(given[0])
        token = secrets.token_hex(8)
        store_shots(given, self.folder.drafts / token)
        return token

    def place_points(self, token: str, placed: Placed) -> tuple[Points, np.ndarray]:
        """Compute the landmarks of a draft's single photo from those that were placed, and draw them on it.

        Raises:
            ValueError: if the draft is not a single photo, or a point is outside it.
        """
        return proposed(single_photo(self._draft(token)), placed, run=self._sandbox.run)

    def _draft(self, token: str) -> Path:
        if len(token) != 16 or not token.isalnum():
            raise ValueError("there are no images: drop photos or a video first")
        return self.folder.drafts / token

    def create(self, token: str, name: str, form: ConsentForm, *, placed: Placed | None = None) -> Job:
        """Record the consent, and fine-tune an avatar of a draft in a job.

        Args:
            token: the draft.
            name: name of the avatar.
            form: the consent form.
            placed: landmarks that were placed by hand on a single photo, in pixels; none if faces were found.

        Raises:
            ValueError: if there is no draft, the name is taken or invalid, the form is incomplete, or the points are too few.
            TooMany, DiskFull: as `check_job`.
        """
        self.check_job()
        draft = self._draft(token)
        name = check_name(name.strip())
        if placed and len(placed) < NEEDED:
            raise ValueError(f"place at least {NEEDED} points on the photo, or none; {len(placed)} were")
        points = self.place_points(token, placed)[0] if placed else None
        with self._reserved(name):
            person = prepare_person(self.folder, name, draft, form, points=points)
            return self._make(person, draft=token)

    def example(self, name: str) -> Job:
        """Make the avatar of a bundled person in a job.

        Raises:
            ValueError: if the name is unknown, or the avatar exists.
            TooMany, DiskFull: as `check_job`.
        """
        self.check_job()
        if self.folder.avatar(name).exists():  # also checks the name
            raise ValueError(f"the avatar {name!r} is in the gallery already")
        with self._reserved(name):
            return self._make(prepare_example(self.folder, name))

    @contextlib.contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """Reserve a name for the avatar of a new job; the job releases it, or an error before it begins."""
        with self._lock:
            if name in self._pending():
                raise ValueError(f"the avatar {name!r} is being made already")
            self._preparing.add(name)
        try:
            yield
        except BaseException:
            self._release(name)
            raise
        finally:
            self._preparing.discard(name)

    def _release(self, name: str) -> None:
        """Delete the images and the consent record of a name, if there is no avatar."""
        if not self.folder.avatar(name).exists():
            self.folder.forget(name, results=False)  # finished videos do not need the avatar

    def _release_avatar(self, job: Job) -> None:
        self._release(job.request.avatar)

    def _make(self, person: PersonRequest, *, draft: str = "") -> Job:
        return self._submit(Request(Kind.AVATAR, person.name, self._making_options(person) | {"draft": draft}))

    def _making_options(self, person: PersonRequest) -> dict[str, str]:
        places = {"shots": person.shots, "landmarks": person.landmarks}
        named = {name: self.folder.within(path) for name, path in places.items() if path is not None}
        return named | {"meta": self.meta_name}

    def _person(self, request: Request) -> PersonRequest:
        paths = {
            name: self.folder.root / path for name, path in request.options.items() if name in ("shots", "landmarks")
        }
        return PersonRequest(request.avatar, **paths, consent=self.folder.consent(request.avatar))

    def _avatar_work(self, job: Job) -> tuple[Path, str]:
        options = job.request.options
        made = make_avatar(job, self.folder, self._person(job.request), weights=lambda: self.meta(options["meta"]))
        self.discard(options.get("draft", ""))
        return self.folder.avatar(job.request.avatar), made

    def drive(
        self, avatar: str, settings: DriveSettings, *, upload: str | Path | None = None, example: str | None = None
    ) -> Job:
        """Drive an avatar in a job, with an uploaded driver or a bundled one.

        Raises:
            ValueError: if the avatar, the driver or a setting is invalid.
            ConsentError: if the avatar's consent has expired or was revoked.
            TooMany, DiskFull: as `check_job`.
        """
        self.check_job()
        whole = settings.seconds is None
        settings = self._within_seconds(settings.checked())
        check_driving(self.avatar(avatar).description, consents=self.folder.consents)
        if upload is not None:
            given = Path(upload)
            self.check_upload(incoming=given.stat().st_size if given.is_file() else 0)
            if whole:
                self._check_seconds(given)
            stem = f"{secrets.token_hex(8)}_{stored_name(1, given.stem)}"
            driver = usable_driver(given, self.folder.drivers, stem, run=self._sandbox.run)
        elif example is not None:
            driver = example_driver(example, self.folder.drivers)
        else:
            raise ValueError("there is no driver: drop a file, or choose a bundled one")
        return self._submit(Request(Kind.VIDEO, avatar, self._drive_options(avatar, settings, driver)))

    def _within_seconds(self, settings: DriveSettings) -> DriveSettings:
        """Return the settings with the user's limit of seconds where they name none."""
        most = self._limits.seconds
        if most is None or (settings.seconds is not None and settings.seconds <= most):
            return settings
        if settings.seconds is not None:
            raise ValueError(f"at most {most:g} seconds of a driver are allowed here, got {settings.seconds:g}")
        return settings._replace(seconds=most)

    def _drive_options(self, avatar: str, settings: DriveSettings, driver: Path) -> dict[str, str]:
        out = self.folder.result(avatar, settings.suffix)
        places = {"driver": self.folder.within(driver), "out": self.folder.within(out)}
        return places | {"settings": settings.to_json()}

    def clip(self, avatar: str, keys: Sequence[Mapping[str, float]], *, seconds: float, suffix: str) -> Job:
        """Make a clip that moves from one position of the sliders to the next.

        Args:
            avatar: name of the avatar.
            keys: values of the sliders, in order.
            seconds: time from one to the next.
            suffix: format, ".mp4" or ".gif".

        Raises:
            ValueError, ConsentError: as `drive`, or if the positions are too few or too many.
        """
        with tempfile.TemporaryDirectory(dir=self.folder.uploads) as place:
            path = Path(place) / "clip.csv"
            write_motion(path, keyframe_motion(keys, seconds=seconds))
            return self.drive(avatar, DriveSettings(suffix=suffix), upload=path)

    def driver_of(self, request: Request) -> Path | None:
        """Path of a job's driver."""
        driver = request.options.get("driver")
        return None if driver is None else self.folder.root / driver

    def _video_work(self, job: Job) -> tuple[Path, str]:
        avatar, options = job.request.avatar, job.request.options
        driver, out = (self.folder.root / options[name] for name in ("driver", "out"))
        settings = DriveSettings.from_json(options["settings"])
        return drive(job, self.avatar(avatar), driver, out, settings, consents=self.folder.consents)

    def one_click(self) -> Job:
        """Drive the bundled rendered head with a bundled video; its avatar is made first if necessary.

        Raises:
            ValueError: if the avatar is being made already.
            TooMany, DiskFull: as `check_job`.
        """
        self.check_job()
        name = next(iter(PEOPLE))
        if self.folder.avatar(name).exists():
            return self.drive(name, DriveSettings(), example=EXAMPLE_DRIVER)
        with self._reserved(name):
            person = prepare_example(self.folder, name)
            driven = self._drive_options(name, DriveSettings(), example_driver(EXAMPLE_DRIVER, self.folder.drivers))
            return self._submit(Request(Kind.BOTH, name, self._making_options(person) | driven))

    def _both_work(self, job: Job) -> tuple[Path, str]:
        self._avatar_work(job)
        return self._video_work(job)

    def command_of(self, request: Request) -> str:
        """Return the command lines that do the same as a job."""
        options, lines = request.options, []
        if request.kind is not Kind.VIDEO:
            lines.append(finetune_command(self.folder, self._person(request), meta=options["meta"]))
        if request.kind is not Kind.AVATAR:
            driver, out = (self.folder.root / options[name] for name in ("driver", "out"))
            settings, path = DriveSettings.from_json(options["settings"]), self.folder.avatar(request.avatar)
            lines.append(animate_command(path, driver, out, settings, consents=self.folder.consents))
        return "\n".join(lines)

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
            if frame.resolve().is_relative_to(self._shared.uploads):
                frame.unlink(missing_ok=True)
        # By its file and not its contents: `avatar` keeps one, which another tab may have replaced.
        key = avatar, self.folder.known(avatar).stat().st_mtime_ns
        with self._lock:
            if self._live is None or self._live[0] != key or self._live[1].ended:
                loaded = self.avatar(avatar)
                check_driving(loaded.description, consents=self.folder.consents)
                self._end_live()
                self._live = key, Live(driven_frames(loaded))
            running = self._live[1]
        running.put(np.ascontiguousarray(pixels[:, ::-1] if mirror else pixels))
        return running.view()

    def stop_live(self) -> None:
        """End the live avatar; the next frame starts over, with a new neutral expression."""
        with self._lock:
            self._end_live()

    def _end_live(self) -> None:
        if self._live is not None:
            self._live[1].close()
            self._replaced = [one for one in (*self._replaced, self._live[1]) if not one.ended]
        self._live = None

    def verify(self, file: str | Path) -> Origin:
        """Look for marks in any file."""
        return origin_of(Path(file), run=self._sandbox.run)

    def forget(self, name: str) -> str:
        """Delete an avatar with everything that belongs to it.

        Raises:
            ValueError: if the name is not a valid one, or the avatar is being made.
        """
        jobs = self.jobs.of(name)
        if name in self._preparing or not all(job.progress().state.ended for job in jobs):
            raise ValueError(f"there are unfinished jobs for {name!r}: cancel them first")
        self.stop_live()
        self.folder.forget(name)
        bundled = {self.folder.drivers / file for file in DRIVERS.values()}
        for driver in map(self.driver_of, (job.request for job in jobs)):
            if driver is not None and driver not in bundled:
                driver.unlink(missing_ok=True)
        self.jobs.forget(name)
        self._loaded.pop(name, None)
        return f"{name} was deleted, with its images, consent record, previews, drivers and results"

    def delete_results(self, *, before: float) -> list[Path]:
        """Delete old results with their records, their uploaded drivers and their entries in the list of jobs.

        Avatars stay, and what jobs that have not ended need or write.

        Args:
            before: time in seconds since 1970; what was written after it stays.

        Returns:
            The deleted results.

        Raises:
            OSError: if a file cannot be deleted.
        """
        unended = [job.request for job in self.jobs.unended()]
        needed = {self.folder.root / str(one.options.get(name)) for one in unended for name in ("driver", "out")}
        needed |= {self.folder.drivers / file for file in DRIVERS.values()}
        old = [path for path in self.folder.old_results(before=before) if path not in needed]
        for path in old:
            path.unlink(missing_ok=True)
            sidecar_path(path).unlink(missing_ok=True)
        self.jobs.delete([job.number for job in self.jobs.ended(before=before) if job.request.kind is not Kind.AVATAR])
        needed |= {self.folder.root / str(one.request.options.get("driver")) for one in self.jobs.progress()}
        for driver in self.folder.drivers.iterdir():
            if driver not in needed and driver.stat().st_mtime < before:
                driver.unlink(missing_ok=True)
        return old

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
