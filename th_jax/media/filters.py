"""FFmpeg's filters, as one object that takes frames and gives frames."""

from fractions import Fraction
from typing import Any

from th_jax.media.backends import load_backend


class FilterGraph:
    """FFmpeg's filters in a row, for frames like the one that is given: push frames in, pull frames out."""

    def __init__(
        self, frame: Any, filters: list[tuple[str, dict[str, Any]]], *, threads: int, beside: Any = None
    ) -> None:
        """Build it; the filter that has a second input gets the frame `beside` there, for ever."""
        graph = load_backend("av.filter", "reading videos").Graph()
        graph.threads = threads
        self._graph = graph  # its filters do not keep it alive
        self._first = last = _source(graph, frame)
        for name, options in filters:
            following = graph.add(name, ":".join(f"{option}={value}" for option, value in options.items()))
            last.link_to(following)
            if len(following.inputs) > 1:
                second = _source(graph, beside)
                second.link_to(following, 0, 1)
            last = following
        self._last = graph.add("buffersink")
        last.link_to(self._last)
        graph.configure()
        if beside is not None:
            second.push(beside)
            second.push(None)

    def push(self, frame: Any) -> None:
        """Put a frame in, or None after the last."""
        self._first.push(frame)

    def pull(self) -> Any:
        """The next frame; PyAV's BlockingIOError if more have to come first, its EOFError after the last."""
        return self._last.pull()


def _source(graph: Any, frame: Any) -> Any:
    return graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base or Fraction(1, 1000)
    )
