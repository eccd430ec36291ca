"""Robustness of the watermark by strength: `python -m benchmarks.watermark --generated 100 --clips FILE...`.

Three kinds of videos of 25 frames are marked, changed, and searched, as stills (the first frame) and through H.264: rendered
heads of people on whom no setting was chosen (up to 256 px), what avatars of `heads64` generate from them (64 px), and seconds
of real videos, cropped to their middle square; `--faces FILE...` puts those with a talking face into a separate table.

"Chip errors" is the fraction of wrong chips before error correction, at the true position. "Detected" is the fraction of
images or videos in which exactly the right message was found, after error correction. In the JSON, "bits" is the fraction of
correct bits (none for an undetected message), and "wrong" counts messages found that were never embedded.

It writes watermark.json and watermark.md. Measurements are stored in OUT/videos, so that the same command resumes; after a
change of the watermark or of the measurements it starts over. It uses one core.
"""

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np

from benchmarks.watermark_changes import CHANGES, Changed, through_h264
from benchmarks.watermark_hosts import Video, generated, rendered, seconds_of
from benchmarks.watermark_report import Key, report, rows_of
from th_jax.provenance import Kind, Provenance, write_image
from th_jax.provenance.watermark import detect as detection
from th_jax.provenance.watermark.detect import Findings, detect, detect_video
from th_jax.provenance.watermark.embed import default_psnr, embed, make_mark
from th_jax.provenance.watermark.layout import Layout, chips_of, layout_of
from th_jax.provenance.watermark.search import Place, Size, read_chips
from th_jax.provenance.watermark.view import view_of

SIZES = (256, 128, 64)
AROUND_DEFAULT = (-4.0, -2.0, 0.0, 2.0, 4.0)
"""dB from the default strength, for the curve."""
CRFS = (18, 23, 28, 33)

_program = jax.jit(embed)


class Outcome(NamedTuple):
    """One image or video."""

    psnr: float
    chips_wrong: float
    bits_right: float
    read: bool
    wrong: int


def judged(found: Findings, changed: list[Changed], *, message: int, layout: Layout, psnr: float) -> Outcome:
    """How well a message was read from an image, or from the frames of a video."""
    first = changed[0]
    size = Size(layout.chips, first.side)
    view = view_of([one.image for one in changed], sizes=lambda shape: [size])
    assert view is not None
    values = read_chips(view.chart(size), Place(first.left, first.top, first.side, 0.0), layout=layout)
    inside = values != 0
    wrong_chips = np.mean((values * chips_of(message, layout=layout) < 0)[inside])
    messages = [mark.message for mark in found.marks]
    differing = min((bin(other ^ message).count("1") for other in messages), default=layout.bits)
    return Outcome(
        psnr=psnr,
        chips_wrong=float(wrong_chips),
        bits_right=1.0 - min(differing, layout.bits) / layout.bits,
        read=messages == [message],
        wrong=sum(other != message for other in messages),
    )


def measure(video: np.ndarray, size: int, psnr: float, rng: np.random.Generator) -> Iterator[tuple[str, Outcome]]:
    """All ways of one video at one size and strength: the first frame as a still, and all of them as a video."""
    frames = video
    if size != video.shape[1]:
        frames = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in video])
    still, layout = frames[:1], layout_of(size, "still")
    message = int(rng.integers(0, 1 << layout.bits))
    marked = np.asarray(_program(still, make_mark(message, size=size, kind="still", psnr=psnr)))
    reached = _psnr(still, marked)
    for name, change in CHANGES.items():
        changed = change(marked[0], rng)
        yield name, judged(detect(changed.image), [changed], message=message, layout=layout, psnr=reached)
    layout = layout_of(size, "video")
    message = int(rng.integers(0, 1 << layout.bits))
    marked = np.asarray(_program(frames, make_mark(message, size=size, kind="video", psnr=psnr)))
    reached = _psnr(frames, marked)
    for crf in CRFS:
        shown = [Changed(frame, 0.0, 0.0, float(size)) for frame in through_h264(marked, crf)]
        found = detect_video(one.image for one in shown)
        yield f"video, CRF {crf}", judged(found, shown, message=message, layout=layout, psnr=reached)


def _psnr(frames: np.ndarray, others: np.ndarray) -> float:
    """The least of all frames, in dB."""
    difference = frames.astype(np.float64) - others
    return float(np.min(10 * np.log10(255.0**2 / np.mean(difference**2, axis=(1, 2, 3)))))


def code_digest() -> str:
    """Of everything that a measurement depends on beside its video: a file of measurements is of one state of it."""
    ours = [Path(__file__), Path(__file__).with_name("watermark_changes.py")]
    files = sorted([*Path(str(detection.__file__)).parent.glob("*.py"), *ours])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def measured(video: Video, sizes: Iterable[int], steps: Iterable[float], kept: Path) -> dict[Key, Outcome]:
    """Measure a video at all sizes up to its own and at these steps from the default strength, or read what was measured.

    Raises:
        OSError: if the disk refuses.
    """
    file, code = kept / f"{video.name}.json", code_digest()
    known: dict[str, dict[str, list[float]]] = {}
    if file.is_file():
        record = json.loads(file.read_bytes())
        known = record["measured"] if record["code"] == code else {}
    wanted = [(size, step) for size in sizes for step in steps]
    if any(f"{size} {step:g}" not in known for size, step in wanted):
        frames = video.make()
        seed = int(hashlib.sha256(video.name.encode()).hexdigest()[:8], 16)
        for size, step in wanted:
            if size <= frames.shape[1] and f"{size} {step:g}" not in known:
                rng = np.random.default_rng([seed, size, round(10 * step) + 1000])
                found = measure(frames, size, default_psnr(size) + step, rng)
                known[f"{size} {step:g}"] = {way: [float(number) for number in outcome] for way, outcome in found}
            known.setdefault(f"{size} {step:g}", {})
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps({"code": code, "measured": known}))
        partial.replace(file)
    return {
        (size, default_psnr(size) + step, way): Outcome(psnr, chips, bits, bool(read), int(wrong))
        for size, step in wanted
        for way, (psnr, chips, bits, read, wrong) in known[f"{size} {step:g}"].items()
    }


def sheet(video: np.ndarray) -> np.ndarray:
    """A frame, the same marked, and the difference ten times enlarged: at 256 px, and below it at 64 px."""
    rows = []
    for size in (256, 64):
        frame = cv2.resize(video[0], (size, size), interpolation=cv2.INTER_AREA)
        marked = np.asarray(_program(frame[None], make_mark(0x5EA1, size=size, kind="still")))[0]
        difference = np.clip(128 + 10 * (marked.astype(int) - frame), 0, 255).astype(np.uint8)
        row = np.concatenate([frame, marked, difference], axis=1)
        rows.append(cv2.resize(row, (3 * 256, 256), interpolation=cv2.INTER_NEAREST))
    return np.concatenate(rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watermark")
    parser.add_argument("--people", type=int, default=100, help="rendered people")
    parser.add_argument("--generated", type=int, default=0, help="people whose avatars' frames are marked too, 64 px")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="real videos")
    parser.add_argument("--faces", type=Path, nargs="*", default=[], help="real videos of talking faces")
    parser.add_argument("--curve", type=int, default=100, help="videos of each kind that are marked at all strengths")
    parser.add_argument("--out", type=Path, default=Path("out/watermark"))
    parser.add_argument("--sheet", type=Path, help="PNG to write instead: a head before and after, and the difference")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.sheet:
        record = Provenance(kind=Kind.FIGURE, notes="a rendered CC0 head, marked")
        write_image(options.sheet, sheet(next(rendered(1)).make()), provenance=record)
        return
    kept = options.out / "films"
    kept.mkdir(parents=True, exist_ok=True)
    hosts = {
        "Rendered heads": rendered(options.people),
        "Generated frames": generated(options.generated) if options.generated else (),
        "Talking faces": seconds_of(options.faces),
        "Real videos": seconds_of(options.clips),
    }
    tables: dict[str, list[dict[str, object]]] = {}
    for name, videos in hosts.items():
        outcomes: dict[Key, dict[str, Outcome]] = defaultdict(dict)
        for index, video in enumerate(videos):
            steps = AROUND_DEFAULT if index < options.curve else (0.0,)
            for key, outcome in measured(video, SIZES, steps, kept).items():
                outcomes[key][video.name] = outcome
            print(f"{name} {index + 1}: {video.name}", flush=True)
        if outcomes:
            tables[name] = rows_of(outcomes)
    text = "\n".join(report(title, rows) for title, rows in tables.items())
    (options.out / "watermark.json").write_text(json.dumps(tables, indent=1))
    (options.out / "watermark.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
