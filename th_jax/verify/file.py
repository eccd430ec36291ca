"""Verifies one file, whatever it is: each look runs in a process with limits, and whatever ends it becomes a sentence."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.media import MediaError
from th_jax.media.confinement import ProcessLimits
from th_jax.media.limits import check_file
from th_jax.media.sandbox import run_limited
from th_jax.verify.looks import LIMITS, look_at_pixels, look_beside, look_for_manifest
from th_jax.verify.verdict import Seen, Verdict, verdict_of

FILM_SECONDS = 120.0
"""Of a film that are searched for watermarks."""

PROCESS_LIMITS = ProcessLimits(memory=6 * 2**30, cpu_seconds=1800.0, seconds=3600.0)
"""On each look at a file."""

_SHOWN = 200
_DOUBT_TOLD = 0.005
"""About a message, from which on it is told."""


class FileReport(NamedTuple):
    """A verdict with its reasons."""

    file: str
    verdict: Verdict
    lines: tuple[str, ...]
    """The reasons as sentences; what others wrote in the file is cut to printable letters."""
    seen: Seen

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "file": self.file,
            "verdict": self.verdict.value,
            "exit_code": self.verdict.exit_code,
            "reasons": list(self.lines),
            "c2pa": self.seen.manifest,
            "c2pa_fault": self.seen.manifest_fault,
            "watermark": self.seen.pixels,
            "watermark_fault": self.seen.pixels_fault,
            "record": self.seen.sidecar,
        }


def verify_file(
    path: str | Path,
    *,
    trust_anchors: str | None = None,
    seconds: float = FILM_SECONDS,
    run: Callable[..., Any] = run_limited,
) -> FileReport:
    """What can be said of a file, which may be anything.

    Args:
        path: of a picture or film of any size.
        trust_anchors: root certificates, as PEM, whose signers are reported as trusted.
        seconds: of a film that are searched for watermarks; above 0 and finite.
        run: calls a function under limits, `run_limited` by default.

    Raises:
        ValueError: for seconds in which nothing could be found.
        ImportError: without the extra `video`.
    """
    if not 0 < seconds < math.inf:  # written so that NaN is refused too
        raise ValueError(f"seconds of a film to search must be above 0 and finite, but are {seconds}")
    name = str(path)
    try:
        check_file(name, LIMITS)
    except MediaError as error:
        return FileReport(name, Verdict.UNREADABLE, (printable(str(error)),), Seen())

    def look(function: Callable[..., Any], **options: Any) -> tuple[Any, str | None]:
        try:
            return run(function, name, within=PROCESS_LIMITS, **options), None
        except (MediaError, OSError, ValueError, TypeError, RuntimeError) as error:
            return None, printable(str(error))

    manifest, manifest_fault = look(look_for_manifest, trust_anchors=trust_anchors)
    pixels, pixels_fault = look(look_at_pixels, seconds=seconds)
    sidecar, sidecar_fault = look(look_beside)
    if sidecar_fault is not None:
        sidecar = {"fault": sidecar_fault}
    seen = Seen(manifest, manifest_fault, pixels, pixels_fault, sidecar)
    return FileReport(name, verdict_of(seen), tuple(_lines(seen)), seen)


def printable(text: str) -> str:
    """Text of unknown origin for a terminal: at most 200 letters, without control sequences."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


def _lines(seen: Seen) -> list[str]:
    lines = [_manifest_line(seen)]
    if seen.pixels_fault is not None:
        lines.append(f"watermark: not looked for ({seen.pixels_fault})")
    elif seen.pixels is None or not seen.pixels["looked_for"]:
        lines.append("watermark: not looked for")
    else:
        messages = [_message_words(**group) for group in seen.pixels["messages"]]
        lines.append(f"watermark: {', '.join(messages) or 'none found'}")
    if seen.sidecar is not None:
        lines.append(f"record beside it: {_sidecar_words(seen.sidecar)}")
    return lines


def _message_words(*, message: str, count: int, log10_chance: float, doubt: float) -> str:
    often = f"{count} times, " if count > 1 else ""
    unsure = f"; hardly readable: perhaps another message, by a chance of {doubt:.0%}" if doubt >= _DOUBT_TOLD else ""
    return f"{message} ({often}chance of a false find 1e{log10_chance:.0f}{unsure})"


def _manifest_line(seen: Seen) -> str:
    if seen.manifest_fault is not None:
        return f"C2PA: cannot be read ({seen.manifest_fault})"
    found = seen.manifest
    if found is None:
        return "C2PA: none"
    if found["elsewhere"]:
        return "C2PA: the manifest stands elsewhere, and nothing is fetched"
    faults = printable(", ".join(fault for fault in found["faults"] if fault != "signingCredential.untrusted"))
    if not found["intact"]:
        return f"C2PA: does not fit the file ({faults})"
    trust = "trusted" if found["trusted"] else "vouched for by nobody: anybody can sign with such a name"
    expired = "; the certificate is not valid now, and nobody attests when it signed" if found["expired"] else ""
    origin = printable(", ".join(found["source_types"])) or "does not say how it was made"
    machine = "" if found["machine_made"] else "; it names no machine, so it is no mark"
    by = f'signed by "{printable(found["signer"])}" ({trust})'
    return f"C2PA: intact; {by}; made with {printable(found['generator'])}: {origin}{machine}{expired}"


def _sidecar_words(sidecar: dict[str, Any]) -> str:
    if sidecar["fault"] is not None:
        return f"cannot be read ({printable(sidecar['fault'])})"
    state = "fits the file" if sidecar["matches"] else "is of other bytes"
    unmarked = ", written without marks for research" if sidecar["unmarked_for_research"] else ""
    return f"{state}; {sidecar['kind']}{unmarked}"
