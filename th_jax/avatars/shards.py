"""Shards of a people file: which people each of N independent processes makes, and the report that each writes.

The split is a pure function of names and numbers of shots, so that processes agree on it without talking to each other.
"""

import contextlib
import errno
import fcntl
import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from th_jax.avatars.requests import PersonRequest
from th_jax.consent.checks import image_files
from th_jax.data.shots import SHOT_COUNTS, is_video

MAX_SHARDS = 100_000

_NUMBER = re.compile(r"[0-9]{1,9}")
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
SHARD_REPORT = re.compile(r"report\.([0-9]+)-of-([0-9]+)\.jsonl")
"""Names of `Shard.report_file`."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class ShardError(ValueError):
    """The shard cannot be determined; the message says why and what to do."""


class ShardInUseError(Exception):
    """Another process is working on the same shard."""


class Shard(NamedTuple):
    """One of `total` parts of a people file."""

    number: int
    """1 to `total`."""
    total: int
    source: str = "--shard"
    """Option or environment variables that it was taken from."""

    @property
    def title(self) -> str:
        """Which shard it is, and who said so."""
        return f"shard {self.number} of {self.total} (from {self.source})"

    @property
    def report_file(self) -> str:
        """Name of the report that only this shard writes."""
        return f"report.{self.number}-of-{self.total}.jsonl"

    def names(self, sizes: Mapping[str, int]) -> frozenset[str]:
        """Return the names of this shard among those of all shards with their sizes (`split`)."""
        return frozenset(name for name, number in split(sizes, self.total).items() if number == self.number)


class _Scheduler(NamedTuple):
    name: str
    index_variable: str
    """Variable with the index, which counts from 0 (in Slurm from SLURM_ARRAY_TASK_MIN)."""
    count_variable: str | None


_SLURM = _Scheduler("Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
SCHEDULERS = (
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX", None),
    _SLURM,
    _Scheduler("Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    _Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Scheduler("SkyPilot", "SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS"),
)
"""Schedulers whose arrays are recognized, and the variables that they document."""


def parse_shard(written: str) -> Shard:
    """Parse I/N, such as 2/8: the second of eight shards.

    Raises:
        ShardError: if it is not two numbers with 1 <= I <= N <= `MAX_SHARDS`.
    """
    match = _SHARD.fullmatch(written)
    if match is None:
        raise ShardError(f"a shard is written I/N, such as 2/8, but got {written[:100]!r}")
    return _checked(int(match[1]), int(match[2]), "--shard")


def shard_of_environment(environment: Mapping[str, str], *, count: int | None = None) -> Shard | None:
    """Determine the shard from the variables of a scheduler's array.

    The number of shards is by default the scheduler's variable. Slurm's task IDs must count from 0 or 1; if `count` is
    given, they count from 0, so that single tasks of an array can be submitted again.

    Returns:
        The shard; None outside of arrays.

    Raises:
        ShardError: if a variable is malformed or missing, several schedulers' variables are set, or there is a `count`
            but no array.
    """
    found = [scheduler for scheduler in SCHEDULERS if scheduler.index_variable in environment]
    if not found:
        if count is not None:
            names = ", ".join(scheduler.index_variable for scheduler in SCHEDULERS)
            raise ShardError(
                f"--shard-count needs the index of a scheduler, but none of {names} is set: give --shard I/N"
            )
        return None
    if len(found) > 1:
        names = " and ".join(scheduler.index_variable for scheduler in found)
        raise ShardError(f"{names} are both set, so the shard is not clear: give --shard I/N")
    (scheduler,) = found
    index, source = _value(environment, scheduler.index_variable), [scheduler.index_variable]
    if count is not None:
        source.append("--shard-count")
    elif scheduler.count_variable is None or scheduler.count_variable not in environment:
        missing = (
            f"but not {scheduler.count_variable}"
            if scheduler.count_variable
            else f"and {scheduler.name} does not tell how many there are"
        )
        raise ShardError(
            f"{scheduler.index_variable} is set, {missing}: add --shard-count N, or --shard 1/1 to make everyone in one "
            "process"
        )
    else:
        count = _value(environment, scheduler.count_variable)
        source.append(scheduler.count_variable)
        if scheduler is _SLURM:
            index -= _slurm_offset(environment, count)
    if not 0 <= index < count <= MAX_SHARDS:
        raise ShardError(
            f"{scheduler.index_variable} is {environment[scheduler.index_variable]}, which is not one of the indices of "
            f"{count} shards (at most {MAX_SHARDS}): correct the size of the array or --shard-count"
        )
    return Shard(index + 1, count, " and ".join(source))


def count_shots(person: PersonRequest, *, max_shots: int | None = None) -> int:
    """Estimate how many shots a person has, from the folder's listing alone.

    A folder counts its image files and a video counts as many frames as are used at most, because nothing is decoded.
    An unreadable folder counts as one.
    """
    most = SHOT_COUNTS[-1] if max_shots is None else max_shots
    if is_video(person.shots):
        return most
    try:
        return max(1, min(most, len(image_files(person.shots))))
    except OSError:
        return 1


def split(shots: Mapping[str, int], count: int) -> dict[str, int]:
    """Assign each person to a shard, so that the shards have nearly the same number of shots.

    The people with the most shots are assigned first, each to the shard with the fewest so far. Two shards differ by at
    most the largest number of shots of one person.

    Returns:
        The shard's number, 1 to `count`, by name. It depends neither on the order of `shots` nor on anything else.
    """
    loads = [(0, 0, number) for number in range(1, count + 1)]  # shots, people, shard; a valid heap
    assigned = {}
    for name in sorted(shots, key=lambda name: (-shots[name], name)):
        load, people, number = loads[0]
        heapq.heapreplace(loads, (load + shots[name], people + 1, number))
        assigned[name] = number
    return assigned


def people_of_shard(
    people: Sequence[PersonRequest], shard: Shard, *, max_shots: int | None = None
) -> tuple[list[PersonRequest], str]:
    """Return the people of a shard in the order of the people file, and one line that describes the shard."""
    shots = {person.name: count_shots(person, max_shots=max_shots) for person in people}
    names = shard.names(shots)
    chosen = [person for person in people if person.name in names]
    share = sum(shots[person.name] for person in chosen)
    text = f"{len(chosen)} of {len(people)} people, about {share} of {sum(shots.values())} images"
    return chosen, f"{shard.title}: {text}"


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[bool]:
    """Hold a lock on a shard's report until the block or the process ends.

    The report is created, with its folder, if necessary.

    Yields:
        Whether the file system supports locks; without them the scheduler must not run a shard twice at a time.

    Raises:
        ShardInUseError: if another process holds the lock.
        OSError: if the report cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError as error:
            raise ShardInUseError(f"another process is writing {path}: wait for it or stop it") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            locked = False
        yield locked


def shard_reports(folder: Path) -> list[tuple[Shard, Path]]:
    """List the reports of shards in a folder, ordered by the number of shards and the shard's number."""
    matches = [(SHARD_REPORT.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((Shard(int(match[1]), int(match[2]), path.name), path) for match, path in matches if match)


def _checked(number: int, count: int, source: str) -> Shard:
    if not 1 <= number <= count <= MAX_SHARDS:
        raise ShardError(f"a shard is 1/N to N/N, with N at most {MAX_SHARDS}, but got {number}/{count}")
    return Shard(number, count, source)


def _value(environment: Mapping[str, str], name: str) -> int:
    written = environment.get(name, "")
    if not _NUMBER.fullmatch(written):
        raise ShardError(f"{name} must be a whole number, but is {written[:100]!r}: correct it, or give --shard I/N")
    return int(written)


def _slurm_offset(environment: Mapping[str, str], count: int) -> int:
    """Return the first task ID, after checking that the array is 0 to N-1 or 1 to N: gaps would leave people out."""
    first = _value(environment, "SLURM_ARRAY_TASK_MIN")
    last = _value(environment, "SLURM_ARRAY_TASK_MAX") if "SLURM_ARRAY_TASK_MAX" in environment else first + count - 1
    if first > 1 or last != first + count - 1:
        raise ShardError(
            f"the Slurm array has {count} tasks from {first} to {last}, but must be 0 to N-1 or 1 to N: to run only "
            "some tasks again, count them from 0 and give --shard-count N"
        )
    return first
