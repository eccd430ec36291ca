"""Limits of each user of a studio: requests a minute, jobs an hour, bytes on the disk, and seconds of a video."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Limits(NamedTuple):
    """Limits of each user; None is no limit."""

    requests: int | None = None
    """Requests a minute, without those of the page itself."""
    jobs: int | None = None
    """Jobs an hour."""
    disk_bytes: int | None = None
    """Size of the user's folder."""
    seconds: float | None = None
    """Length of a video that is uploaded, and of one that is made."""


NO_LIMITS = Limits()

SERVED = Limits(requests=600, jobs=60, disk_bytes=20 * 2**30, seconds=600.0)
"""Limits where others than the machine's owner are let in."""


class TooMany(ValueError):
    """A user asks for too much at once; the message says when to try again."""

    def __init__(self, message: str, *, retry_after: float = 60.0) -> None:
        """Create the error.

        Args:
            message: one sentence for the user.
            retry_after: seconds until it is worth to try again.
        """
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))


class Rate:
    """Counts events by key, such as requests by user, within a moving window of time."""

    def __init__(
        self, what: str, most: int | None, seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count.

        Args:
            what: what is counted, in plural, for the message.
            most: number of events within the window, or None without a limit.
            seconds: length of the window.
            clock: time in seconds.
        """
        self._what, self._most, self._seconds, self._clock = what, most, seconds, clock
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def check(self, *, key: str = "", count: bool = False) -> None:
        """Check that another event is within the limit.

        Args:
            key: whose event it is.
            count: whether it happens now.

        Raises:
            TooMany: if it is not; it is not counted then.
        """
        if self._most is None:
            return
        now = self._clock()
        with self._lock:
            for known in [known for known, times in self._times.items() if times[-1] <= now - self._seconds]:
                del self._times[known]  # or each address that ever asked would stay
            times = self._times.get(key, deque[float]())
            while times and times[0] <= now - self._seconds:
                times.popleft()
            if len(times) >= self._most:
                left = times[0] + self._seconds - now if times else self._seconds
                window = {60.0: "a minute", 3600.0: "an hour"}.get(self._seconds, f"{self._seconds:g} s")
                raise TooMany(
                    f"these are too many {self._what}: {self._most} {window} are allowed; try again in {math.ceil(left)} s",
                    retry_after=left,
                )
            if count:
                times.append(now)
                self._times[key] = times
