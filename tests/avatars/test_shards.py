"""Shards of a people file: the split as a property, the schedulers' variables, and one writer per report."""

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from th_jax.avatars.requests import PersonRequest
from th_jax.avatars.shards import (
    SCHEDULERS,
    Shard,
    ShardError,
    ShardInUseError,
    count_shots,
    only_writer,
    parse_shard,
    people_of_shard,
    shard_of_environment,
    shard_reports,
    split,
)

NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=6)
SHOTS = st.dictionaries(NAMES, st.integers(1, 32), max_size=60)


def slurm(task: str, first: str, last: str, count: str) -> dict[str, str]:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    return dict(zip(names, (task, first, last, count), strict=True))


@given(SHOTS, st.integers(1, 20), st.randoms(use_true_random=False))
def test_each_person_is_in_one_shard_of_nearly_the_same_size(
    shots: dict[str, int], count: int, order: random.Random
) -> None:
    assigned = split(shots, count)
    assert assigned.keys() == shots.keys()
    assert set(assigned.values()) <= set(range(1, count + 1))
    loads = [sum(shots[name] for name, shard in assigned.items() if shard == n) for n in range(1, count + 1)]
    assert max(loads) - min(loads) <= max(shots.values(), default=0)
    shuffled = list(shots.items())
    order.shuffle(shuffled)
    assert split(dict(shuffled), count) == assigned


def test_the_split_is_the_same_in_every_version() -> None:
    """Shards of one array may run under different versions; these were assigned by hand."""
    shots = {"a": 8, "b": 7, "c": 6, "d": 5, "e": 4}
    assert split(shots, 2) == {"a": 1, "b": 2, "c": 2, "d": 1, "e": 1}
    assert split({"a": 1, "b": 1, "c": 1}, 5) == {"a": 1, "b": 2, "c": 3}


def test_equal_people_are_equally_many() -> None:
    sizes = [list(split({f"p{n}": 8 for n in range(10_000)}, 16).values()).count(shard) for shard in range(1, 17)]
    assert sizes == [625] * 16


def test_ten_thousand_people_need_little_memory() -> None:
    shots = {f"person{n:05}": n % 32 + 1 for n in range(10_000)}
    tracemalloc.start()
    try:
        split(shots, 64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_shots_are_counted_by_listing(tmp_path: Path) -> None:
    """The files are empty: decoding them would fail."""
    for name in ("1.jpg", "2.PNG", "3.jpg", "notes.txt", ".4.jpg"):
        (tmp_path / "ada" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "ada" / name).touch()
    (tmp_path / "many").mkdir()
    for number in range(40):
        (tmp_path / "many" / f"{number}.jpg").touch()
    counts = {
        name: count_shots(PersonRequest("x", tmp_path / name))
        for name in ("ada", "many", "video.mp4", "photo.jpg", "no")
    }
    assert counts == {"ada": 3, "many": 32, "video.mp4": 32, "photo.jpg": 1, "no": 1}
    assert count_shots(PersonRequest("x", tmp_path / "video.mp4"), max_shots=8) == 8
    assert count_shots(PersonRequest("x", tmp_path / "many"), max_shots=8) == 8
    asked = [PersonRequest(name, tmp_path / name) for name in ("no", "many", "ada")]
    parts = [people_of_shard(asked, Shard(n, 2, "X")) for n in (1, 2)]
    assert [[person.name for person in chosen] for chosen, _ in parts] == [["many"], ["no", "ada"]]
    assert parts[1][1] == "shard 2 of 2 (from X): 2 of 3 people, about 4 of 36 images"


@pytest.mark.parametrize(("written", "expected"), [("1/1", (1, 1)), ("2/8", (2, 8)), ("08/8", (8, 8))])
def test_a_shard_of_the_command_line(written: str, expected: tuple[int, int]) -> None:
    assert parse_shard(written)[:2] == expected


@pytest.mark.parametrize(
    "written",
    ["", "2", "0/8", "9/8", "1/0", "-1/8", "1/8 ", " 1/8", "1/8\n", "1.0/8", "²/8", "1/100001", "٢/8", "1//8"],
)
def test_what_is_no_shard(written: str) -> None:
    with pytest.raises(ShardError, match=r"^a shard is "):
        parse_shard(written)


@pytest.mark.parametrize(
    ("environment", "count", "expected"),
    [
        ({}, None, None),
        ({"SLURM_JOB_ID": "7", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None, None),
        ({"JOB_COMPLETION_INDEX": "2"}, 8, Shard(3, 8, "JOB_COMPLETION_INDEX and --shard-count")),
        (
            {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "4"}, None,
            Shard(1, 4, "CLOUD_RUN_TASK_INDEX and CLOUD_RUN_TASK_COUNT"),
        ),
        (
            {"AWS_BATCH_JOB_ARRAY_INDEX": "9", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, None,
            Shard(10, 10, "AWS_BATCH_JOB_ARRAY_INDEX and AWS_BATCH_JOB_ARRAY_SIZE"),
        ),
        (
            {"SKYPILOT_JOB_RANK": "1", "SKYPILOT_NUM_JOBS": "2"}, None,
            Shard(2, 2, "SKYPILOT_JOB_RANK and SKYPILOT_NUM_JOBS"),
        ),
        (
            slurm("0", "0", "7", "8"),
            None, Shard(1, 8, "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT"),
        ),
        (
            slurm("8", "1", "8", "8"),
            None, Shard(8, 8, "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT"),
        ),
        (
            slurm("5", "2", "5", "2"),
            8, Shard(6, 8, "SLURM_ARRAY_TASK_ID and --shard-count"),
        ),
    ],
)  # fmt: skip
def test_a_shard_of_a_scheduler(environment: dict[str, str], count: int | None, expected: Shard | None) -> None:
    assert shard_of_environment(environment, count=count) == expected
    reordered = dict(reversed([*environment.items(), ("PATH", "/bin"), ("LANG", "C")]))
    assert shard_of_environment(reordered, count=count) == expected


@pytest.mark.parametrize(
    ("environment", "count", "message"),
    [
        ({}, 8, "--shard-count needs the index of a scheduler, but none of JOB_COMPLETION_INDEX"),
        ({"JOB_COMPLETION_INDEX": "2"}, None, "and Kubernetes does not tell how many there are: add --shard-count N"),
        ({"JOB_COMPLETION_INDEX": "8"}, 8, "JOB_COMPLETION_INDEX is 8, which is not one of the indices of 8 shards"),
        ({"JOB_COMPLETION_INDEX": ""}, 8, "JOB_COMPLETION_INDEX must be a whole number, but is ''"),
        ({"JOB_COMPLETION_INDEX": "-1"}, 8, "JOB_COMPLETION_INDEX must be a whole number, but is '-1'"),
        ({"CLOUD_RUN_TASK_INDEX": "1"}, None, "CLOUD_RUN_TASK_INDEX is set, but not CLOUD_RUN_TASK_COUNT: add"),
        ({"CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "4 "}, None, "CLOUD_RUN_TASK_COUNT must be a whole number"),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "0"}, None, "not one of the indices of 0 shards"),
        ({"JOB_COMPLETION_INDEX": "0", "SKYPILOT_JOB_RANK": "0"}, 2, "and SKYPILOT_JOB_RANK are both set"),
        (slurm("3", "3", "3", "1"), None, "the Slurm array has 1 tasks from 3 to 3, but must be 0 to N-1 or 1 to N"),
        (slurm("0", "0", "5", "2"), None, "the Slurm array has 2 tasks from 0 to 5"),
        (slurm("1", "x", "5", "2"), None, "SLURM_ARRAY_TASK_MIN must be a whole number, but is 'x'"),
    ],
)  # fmt: skip
def test_unclear_variables_are_refused(environment: dict[str, str], count: int | None, message: str) -> None:
    with pytest.raises(ShardError) as raised:
        shard_of_environment(environment, count=count)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.name)
@given(size=st.integers(1, 12))
def test_the_tasks_of_an_array_are_its_shards(scheduler: object, size: int) -> None:
    index, count = scheduler.index_variable, scheduler.count_variable  # type: ignore[attr-defined]
    shards = []
    for task in range(size):
        environment = {index: str(task), "SLURM_ARRAY_TASK_MIN": "0"} | ({count: str(size)} if count else {})
        shards.append(shard_of_environment(environment, count=None if count else size))
    assert [shard and shard[:2] for shard in shards] == [(n, size) for n in range(1, size + 1)]


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_report_has_one_writer(tmp_path: Path) -> None:
    """Another process holds it; the lock ends with that process, even if it is killed."""
    path = tmp_path / "out" / Shard(1, 2).report_file
    with only_writer(path) as locked:
        assert locked
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(ShardInUseError, match=r"another process is writing .*report\.1-of-2\.jsonl: wait"),
            only_writer(path),
        ):
            pass
        with only_writer(tmp_path / "out" / Shard(2, 2).report_file):
            pass
        other.kill()
    with only_writer(path):
        pass
    assert [shard[:2] for shard, _ in shard_reports(tmp_path / "out")] == [(1, 2), (2, 2)]
