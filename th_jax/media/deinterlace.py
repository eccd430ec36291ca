"""Makes whole frames of interlaced ones, whose odd and even rows were seen at different times."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from th_jax.media.backends import pyav
from th_jax.media.damage import Decoded
from th_jax.media.filters import FilterGraph
from th_jax.media.limits import MediaError, MediaFault


def deinterlaced(path: Path, decoded: Iterator[Decoded], *, threads: int) -> Iterator[Decoded]:
    """The same frames at the same times, those that say that they are interlaced by FFmpeg's bwdif.

    The filter looks at the frames before and after: so a frame is a little different where decoding begins with it. Up to
    the first interlaced frame nothing is filtered, and nothing costs time. `path` is for messages.

    Raises:
        MediaError: if the filter refuses a frame, or for want of memory.
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
                yield from _through(path, graph, None, waiting)
            kind = described
            graph = FilterGraph(frame, [("bwdif", {"mode": "send_frame", "deint": "interlaced"})], threads=threads)
        waiting.append(time)
        yield from _through(path, graph, frame, waiting)
    if graph is not None:
        yield from _through(path, graph, None, waiting)


def _through(path: Path, graph: FilterGraph, frame: Any, waiting: deque[float]) -> list[Decoded]:
    """What the filter has ready after a frame, or after the last: in the order of what went in, one for one."""
    av = pyav()
    ready: list[Decoded] = []
    try:
        graph.push(frame)
        while waiting:
            ready.append((waiting[0], graph.pull()))
            waiting.popleft()
    except (av.error.BlockingIOError, av.error.EOFError):
        pass
    except MemoryError as error:
        raise MediaError(MediaFault.OVER_LIMITS, f"{path} needs more memory than there is") from error
    except av.error.FFmpegError as error:
        raise MediaError(
            MediaFault.UNDECODABLE, f"{path} holds interlaced frames that cannot be used: {error}"
        ) from error
    return ready
