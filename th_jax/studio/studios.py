"""The studios of all users of a folder, with their common database of jobs, and what is deleted after a time."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from th_jax.studio.folder import RESULTS, USERS, delete_old_files, lock_of
from th_jax.studio.jobs import State, UserJobs
from th_jax.studio.limits import NO_LIMITS, Limits
from th_jax.studio.session import Shared, Studio

_SWEEP_SECONDS = 600.0
"""Longest time between two looks for what is too old."""


class Studios:
    """A studio for each user: the folder itself without users, otherwise a folder each below `users`."""

    def __init__(
        self,
        root: Path,
        *,
        meta: str = "heads",
        users: Collection[str] | None = None,
        limits: Limits = NO_LIMITS,
        keep_seconds: float | None = None,
        serves: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the folder; `start` begins to do jobs.

        Args:
            root: the folder.
            meta: meta weights of new avatars.
            users: names of the users; None for a studio without users.
            limits: limits of each user.
            keep_seconds: age in seconds from which on results are deleted; None keeps them.
            serves: False in a worker, which only does jobs.
            clock: time in seconds since 1970.

        Raises:
            ValueError: if another studio uses the folder, or its database is damaged.
            OSError: if it cannot be created.
        """
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.users = frozenset([""] if users is None else users)
        """Names of the users who are let in."""
        self._meta, self._limits, self._keep, self._serves, self._clock = meta, limits, keep_seconds, serves, clock
        self._lock = lock_of(self.root) if serves and users is not None else None
        self._opening, self._studios = threading.Lock(), dict[str, Studio]()
        self.shared = Shared(self.root, lambda job: self.of(job.user).work_of(job))
        self.shared.uploads.mkdir(exist_ok=True)
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_on, name="sweeper", daemon=True)
        for user in self.users:
            self.of(user)

    def of(self, user: str) -> Studio:
        """Return a user's studio.

        Args:
            user: name of the user, also of one who is no longer let in, but whose jobs are done; "" without users.
        """
        with self._opening:
            if user not in self._studios:
                self._studios[user] = Studio(
                    self.root / USERS / user if user else self.root, meta=self._meta, limits=self._limits,
                    shared=self.shared, user=user, serves=self._serves and user in self.users,
                )  # fmt: skip
            return self._studios[user]

    def start(self, *, workers: int = 1) -> None:
        """Begin to do jobs, and to delete what is too old.

        Args:
            workers: number of threads of this process that do jobs.
        """
        self.shared.queue.start(workers=workers)
        if self._serves:
            self._sweeper.start()

    def health(self) -> tuple[bool, int]:
        """Return whether jobs are accepted, and how many are waiting.

        Raises:
            OSError: if the database cannot be read.
        """
        ((waiting,),) = self.shared.queue.rows("SELECT count(*) FROM jobs WHERE state = ?", State.WAITING)
        return waiting < UserJobs.MOST * len(self.users), waiting

    def sweep(self) -> None:
        """Delete drafts and uploads of yesterday, and results that are older than they are kept."""
        now = self._clock()
        delete_old_files(self.shared.uploads, now)
        # Also of those who are not let in any more.
        left = {path.parent.name for path in self.root.glob(f"{USERS}/*/{RESULTS}")} if "" not in self.users else set()
        for user in self.users | left:
            studio = self.of(user)
            studio.folder.delete_old_drafts(now)
            if self._keep is not None:
                studio.delete_results(before=now - self._keep)

    def _sweep_on(self) -> None:
        interval = _SWEEP_SECONDS if self._keep is None else min(_SWEEP_SECONDS, max(1.0, self._keep / 10))
        while True:
            try:
                self.sweep()
            except OSError as error:
                logging.getLogger(__name__).error("old results could not be deleted: %s", error)
            if self._closing.wait(interval):
                return

    def close(self) -> bool:
        """End all studios; what is not finished is continued at the next start.

        Returns:
            Whether the running jobs and live avatars of this process have ended.
        """
        self._closing.set()
        if self._sweeper.ident is not None:
            self._sweeper.join()
        ended = self.shared.close()
        for studio in self._studios.values():
            studio.stop_live()
        for studio in self._studios.values():
            ended &= studio.close()
        if self._lock is not None:
            self._lock.release()
        return ended
