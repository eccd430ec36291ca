"""Streams from a sandbox are complete and in order, wait for their reader, and end with it."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.hostile import bad_ends
from th_jax.media import MediaError, MediaFault, open_video
from th_jax.media.isolation import ProcessLimits, naming, run_limited, stream_limited

QUICK = ProcessLimits(memory=3 * 2**30, cpu_seconds=20.0, seconds=20.0)


def squares(count: int, *, size: int) -> Iterator[tuple[int, np.ndarray]]:
    for number in range(count):
        yield number, np.full((size, size), number, np.int32)


def endless(tally: str) -> Iterator[np.ndarray]:
    while True:
        with open(tally, "ab") as file:
            file.write(b".")
        yield np.zeros(2**20, np.uint8)


def process_numbers() -> Iterator[int]:
    while True:
        yield os.getpid()


def refuses() -> Iterator[int]:
    yield 1
    raise MediaError(MediaFault.UNSUPPORTED, "what was wrong")


def divides() -> Iterator[float]:
    yield from (1 / n for n in (1, 0))


def gives_anything() -> Iterator[object]:
    yield object()


def frames_of(path: str) -> Iterator[np.ndarray]:
    with open_video(path) as video:
        yield from (frame for _, frame in video.frames())


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_items_come_in_order() -> None:
    received = list(stream_limited(squares, 40, size=100, within=QUICK))
    assert [number for number, _ in received] == list(range(40))
    for number, square in received:
        np.testing.assert_array_equal(square, np.full((100, 100), number, np.int32))
    assert list(stream_limited(squares, 0, size=1, within=QUICK)) == []


def test_a_video_streams_as_it_is_decoded_here(make_video) -> None:
    path = make_video(frames=30)
    with open_video(path) as video:
        expected = [frame for _, frame in video.frames()]
    np.testing.assert_array_equal(list(stream_limited(frames_of, str(path), within=QUICK)), expected)


def test_the_process_waits_for_its_reader(tmp_path: Path) -> None:
    """At most one item in progress and one in transit, so that a video of any length needs the memory of a few frames."""
    tally = tmp_path / "tally"
    with closing(stream_limited(endless, str(tally), within=QUICK)) as items:
        for _ in range(3):
            next(items)
        time.sleep(0.3)
        assert 3 <= tally.stat().st_size <= 5


def test_a_reader_that_stops_ends_the_process() -> None:
    items = stream_limited(process_numbers, within=QUICK)
    process = next(items)
    assert process != os.getpid()
    assert runs(process)
    items.close()
    assert not runs(process)


def test_streams_and_calls_do_not_wait_for_each_other() -> None:
    one, other = (stream_limited(process_numbers, within=QUICK) for _ in range(2))
    with closing(one), closing(other):
        assert len({next(one), next(other), run_limited(os.getpid, within=QUICK)}) == 3


def test_the_clock_is_paused_while_the_reader_is_busy() -> None:
    items = stream_limited(squares, 3, size=400, within=QUICK._replace(seconds=0.5))
    for _ in items:
        time.sleep(0.6)


@pytest.mark.parametrize(
    ("function", "within", "fault", "sentence"),
    [
        (bad_ends.is_killed, {}, MediaFault.OVER_LIMITS, "its process was killed, probably because memory ran out"),
        (bad_ends.crashes, {}, MediaFault.UNDECODABLE, r"the process that read it crashed \(SIGABRT\)"),
        (bad_ends.hangs, {"seconds": 0.3}, MediaFault.OVER_LIMITS, r"takes longer than 0\.3 s, the limit"),
        (bad_ends.eats_memory, {"memory": 2**30}, MediaFault.OVER_LIMITS, "more than 1024 MiB of memory, the limit"),
        (bad_ends.sends_too_much, {}, MediaFault.UNDECODABLE, "invalid answer: arrays exceed their size limit"),
        (refuses, {}, MediaFault.UNSUPPORTED, "^what was wrong$"),
    ],
)
def test_errors_follow_the_items_before_them(function, within, fault, sentence) -> None:
    items = stream_limited(function, within=QUICK._replace(**within), most=1000)
    next(items)
    with pytest.raises(MediaError, match=sentence) as refused:
        next(items)
    assert refused.value.fault is fault
    with pytest.raises(StopIteration):
        next(items)


def test_other_errors_are_passed_on() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(stream_limited(divides, within=QUICK))
    with pytest.raises(TypeError, match="can be sent"):
        list(stream_limited(gives_anything, within=QUICK))
    with pytest.raises(ValueError, match="top level of a module"):
        next(stream_limited(lambda: iter([1])))


def test_errors_are_given_the_name_of_their_file() -> None:
    with pytest.raises(MediaError, match=r"^cannot read a\.mp4: it hangs$") as refused, naming("a.mp4"):
        raise MediaError(MediaFault.OVER_LIMITS, "it hangs")
    assert refused.value.fault is MediaFault.OVER_LIMITS
    with pytest.raises(MediaError, match=r"^a\.mp4 is empty$"), naming(Path("a.mp4")):
        raise MediaError(MediaFault.EMPTY, "a.mp4 is empty")
    with pytest.raises(MediaError, match=r"^cannot read a\.mp4: ZeroDivisionError: .*zero"), naming("a.mp4"):
        list(stream_limited(divides, within=QUICK))
