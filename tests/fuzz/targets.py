"""What a fuzz target is: inputs, a reader that checks what it reads, and the errors that the reader may raise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.hostile.raw_errors import RAW


class Target(NamedTuple):
    """One parser under test."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Path, Any], object]
    """Reads an input, in a folder where it may write files, and asserts what must hold of all that is read."""
    raises: tuple[type[Exception], ...]
    """What the parser documents."""

    def try_input(self, folder: Path, content: Any) -> None:
        """Fails for every other exception, and for one that a parser below let through."""
        refused: Exception | None = None
        try:
            self.read(folder, content)
        except self.raises as error:
            refused = error
        assert not isinstance(refused, RAW), f"{type(refused).__name__} was raised: {refused}"
        assert refused is None or str(refused).strip()
