"""Leaves out the decoded frames that damage has reached: from the damaged one, in decoding order, to the next keyframe.

In a stream coded between frames each builds on others. After damage a decoder goes on showing frames that look whole
and are half made up of guesses, and reports the damaged one only; with B-frames some of its followers are shown first.

The decoders of H.264 and MPEG-4 report nearly all damage. Those of HEVC and VP9 notice little: nothing is left out then.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

Decoded = tuple[float, Any]
"""The time of a frame and PyAV's frame, not yet converted to RGB."""

_REORDERED = 16
"""No codec shows a frame before more than so many that are decoded after it (H.264 and HEVC allow 16)."""


class IntactFrames:
    """Takes packets, by their numbers in decoding order, and their frames in the order of display."""

    def __init__(self) -> None:
        """No packet has come."""
        self._damaged: int | None = None  # the earliest damaged packet since the last keyframe that was shown
        self._awaited: set[int] = set()  # packets whose frames have not come
        self._held: deque[tuple[int, Decoded]] = deque()  # frames that wait for what was decoded before them

    def sent(self, packet: int) -> None:
        """The packet was given to the decoder."""
        self._awaited.add(packet)
        # Some packets show no frame: of these, the ones that are too old hold nothing up.
        self._awaited.discard(packet - _REORDERED)

    def failed(self, packet: int) -> int:
        """The packet was refused by the decoder; the number of frames that are left out for it."""
        self._awaited.discard(packet)
        return 1 + self._damage(packet)

    def came(self, packet: int, decoded: Decoded, *, key: bool = False) -> int:
        """A packet's frame came from the decoder; the number of frames that are left out for it.

        `key` says that the frame builds on no other, where its decoder does not say so in the frame.
        """
        self._awaited.discard(packet)
        frame = decoded[1]
        if frame.is_corrupt:
            return 1 + self._damage(packet)
        if self._damaged is not None and packet > self._damaged:
            if not (frame.key_frame or key):
                return 1
            self._damaged = None
        self._held.append((packet, decoded))
        return 0

    def ready(self) -> Iterator[Decoded]:
        """The frames that nothing can spoil any more, as everything that was decoded before them is known."""
        while self._held and not any(awaited < self._held[0][0] for awaited in self._awaited):
            yield self._held.popleft()[1]

    def rest(self) -> Iterator[Decoded]:
        """All other frames, when nothing will come from the decoder any more."""
        while self._held:
            yield self._held.popleft()[1]

    def _damage(self, packet: int) -> int:
        """Note the damage; the number of held frames that were decoded after it, and are dropped."""
        self._damaged = packet if self._damaged is None else min(packet, self._damaged)
        kept = deque(entry for entry in self._held if entry[0] < packet)
        dropped = len(self._held) - len(kept)
        self._held = kept
        return dropped
