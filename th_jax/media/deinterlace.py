"""Makes whole frames of interlaced ones, whose odd and even rows were seen at different times."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from th_jax.media.backends import pyav
from th_jax.media.damage import Decoded
from th_jax.media.filters import FilterGraph


def deinterlaced(decoded: Iterator[Decoded], *, threads: int) -> Iterator[Decoded]:
    """The same frames at the same times, those that say that they are interlaced by FFmpeg's bwdif.

    The filter looks at the frames before and after: so a frame is a little different where decoding begins with it. Up to
    the first interlaced frame nothing is filtered, and nothing costs time.
    """
    graph: FilterGraph | None = None
    kind: tuple[int, int, str] | None = None
    waiting: deque[float] = deque()  # times of frames in the filter
    for time, frame in decoded:
        if graph is None and not frame.interlaced_frame:
            yield time, frame
            continue
        described = (frame.width, frame.height, frame.format.name)
        if graph is None or kind != described:
            if graph is not None:
                yield from _out(graph, waiting, end=True)
            kind = described
            graph = FilterGraph(frame, [("bwdif", {"mode": "send_frame", "deint": "interlaced"})], threads=threads)
        graph.push(frame)
        waiting.append(time)
        yield from _out(graph, waiting)
    if graph is not None:
        yield from _out(graph, waiting, end=True)


def _out(graph: FilterGraph, waiting: deque[float], *, end: bool = False) -> Iterator[Decoded]:
    """What the filter has ready: in the order of what went in, one for one."""
    av = pyav()
    if end:
        graph.push(None)
    while waiting:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield waiting.popleft(), frame
