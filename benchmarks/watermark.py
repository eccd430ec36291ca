"""What the watermark survives, against its strength: `python -m benchmarks.watermark --out out/watermark`.

Rendered heads of people that nothing was chosen on are marked, changed, and searched: stills, and films of 25 consecutive
frames through H.264. `--clips FILE...` adds seconds of real films, cut to their middle square. It writes watermark.json and
watermark.md.

Columns: "chips" is the share of chips that are wrong before decoding, at the true place; "marks" is the share of pictures or
films in which exactly the one right message was found, which is after decoding; "bits" the share of right bits, a message that
was not found having none; "wrong" counts found messages that were never embedded.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np

from data_prep.synthetic_heads.identity import draw_identity
from data_prep.synthetic_heads.motion import talk
from data_prep.synthetic_heads.render import render_head
from th_jax.media import Kind, Provenance, open_video, write_image, write_video
from th_jax.watermark.detect import Findings, detect, detect_film
from th_jax.watermark.embed import default_psnr, embed, make_mark
from th_jax.watermark.layout import Layout, chips_of, layout_of
from th_jax.watermark.search import Place, Size, read_chips
from th_jax.watermark.view import view_of

FIRST_SEED = 600_000
FRAMES, FPS = 25, 25.0
SIZES = (256, 128, 64)
AROUND_DEFAULT = (-4.0, -2.0, 0.0, 2.0, 4.0)
"""dB from the default strength, for the curve."""
CRFS = (18, 23, 28, 33)

_program = jax.jit(embed)


class Changed(NamedTuple):
    """A changed picture, and where its mark now lies."""

    picture: np.ndarray
    left: float
    top: float
    side: float


def jpeg(quality: int) -> Callable[[np.ndarray, np.random.Generator], Changed]:
    """JPEG with subsampled colours."""

    def change(picture: np.ndarray, rng: np.random.Generator) -> Changed:
        data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return Changed(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), 0.0, 0.0, float(len(picture)))

    return change


def resize(scale: float) -> Callable[[np.ndarray, np.random.Generator], Changed]:
    """Another size, by area."""

    def change(picture: np.ndarray, rng: np.random.Generator) -> Changed:
        side = round(len(picture) * scale)
        return Changed(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), 0.0, 0.0, float(side))

    return change


def levels(*, factor: float, shift: float, noise: float) -> Callable[[np.ndarray, np.random.Generator], Changed]:
    """Contrast about mid-grey, brightness and white noise, in grey levels."""

    def change(picture: np.ndarray, rng: np.random.Generator) -> Changed:
        values = (picture - 128.0) * factor + 128.0 + shift + rng.normal(scale=noise or 1e-9, size=picture.shape)
        return Changed(np.clip(np.rint(values), 0, 255).astype(np.uint8), 0.0, 0.0, float(len(picture)))

    return change


def crop(picture: np.ndarray, rng: np.random.Generator) -> Changed:
    """Nine tenths of both sides, from anywhere."""
    side = round(0.9 * len(picture))
    left, top = (int(n) for n in rng.integers(0, len(picture) - side + 1, 2))
    cut = np.ascontiguousarray(picture[top : top + side, left : left + side])
    return Changed(cut, float(-left), float(-top), float(len(picture)))


def cropped_jpeg(picture: np.ndarray, rng: np.random.Generator) -> Changed:
    """A crop that is then saved as JPEG 75."""
    cut = crop(picture, rng)
    return cut._replace(picture=jpeg(75)(cut.picture, rng).picture)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], Changed]] = {
    "clean": levels(factor=1.0, shift=0.0, noise=0.0),
    **{f"JPEG {quality}": jpeg(quality) for quality in (90, 75, 50, 30)},
    "resized to 75 %": resize(0.75),
    "resized to 50 %": resize(0.5),
    "cropped by 10 %": crop,
    "cropped by 10 %, JPEG 75": cropped_jpeg,
    "contrast 0.8, brightness +20": levels(factor=0.8, shift=20.0, noise=0.0),
    "noise of 5 levels": levels(factor=1.0, shift=0.0, noise=5.0),
}


class Outcome(NamedTuple):
    """One picture or film."""

    psnr: float
    chips_wrong: float
    bits_right: float
    read: bool
    wrong: int


def rendered(people: int) -> Iterator[np.ndarray]:
    """A second of each person's talk, `[25, 256, 256, 3]`."""
    for seed in range(FIRST_SEED, FIRST_SEED + people):
        identity, motion = draw_identity(seed), talk(seed, seconds=4.0, fps=FPS)
        yield np.stack([render_head(identity, motion.state(30 + t), size=256).frame for t in range(FRAMES)])


def seconds_of(clips: Iterable[Path]) -> Iterator[np.ndarray]:
    """Every fourth second of the films' middle squares, at 256 px."""
    for clip in clips:
        taken: list[np.ndarray] = []
        with open_video(clip) as video:
            for index, (_, frame) in enumerate(video.frames()):
                if index % (4 * FRAMES) >= FRAMES:
                    continue
                side = min(frame.shape[:2])
                top, left = ((length - side) // 2 for length in frame.shape[:2])
                method = cv2.INTER_AREA if side > 256 else cv2.INTER_CUBIC
                taken.append(cv2.resize(frame[top : top + side, left : left + side], (256, 256), interpolation=method))
                if len(taken) == FRAMES:
                    yield np.stack(taken)
                    taken = []


def judged(found: Findings, changed: list[Changed], *, message: int, layout: Layout, psnr: float) -> Outcome:
    """How well a message was read from a picture, or from the frames of a film."""
    first = changed[0]
    size = Size(layout.chips, first.side)
    view = view_of([one.picture for one in changed], sizes=lambda shape: [size])
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


def through_h264(frames: np.ndarray, crf: int) -> list[np.ndarray]:
    """The film as it is read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        # A figure: what is generated would get another mark on its way out.
        write_video(path, list(frames), fps=FPS, provenance=Provenance(kind=Kind.FIGURE), crf=crf)
        with open_video(path) as video:
            return [frame for _, frame in video.frames()]


def measure(film: np.ndarray, size: int, psnr: float, rng: np.random.Generator) -> Iterator[tuple[str, Outcome]]:
    """All ways of one person at one size and strength: the first frame as a still, and all of them as a film."""
    frames = film
    if size != film.shape[1]:
        frames = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in film])
    still, layout = frames[:1], layout_of(size, "still")
    message = int(rng.integers(0, 1 << layout.bits))
    marked = np.asarray(_program(still, make_mark(message, size=size, kind="still", psnr=psnr)))
    reached = _psnr(still, marked)
    for name, change in CHANGES.items():
        changed = change(marked[0], rng)
        yield name, judged(detect(changed.picture), [changed], message=message, layout=layout, psnr=reached)
    layout = layout_of(size, "film")
    message = int(rng.integers(0, 1 << layout.bits))
    marked = np.asarray(_program(frames, make_mark(message, size=size, kind="film", psnr=psnr)))
    reached = _psnr(frames, marked)
    for crf in CRFS:
        shown = [Changed(frame, 0.0, 0.0, float(size)) for frame in through_h264(marked, crf)]
        found = detect_film(one.picture for one in shown)
        yield f"film, CRF {crf}", judged(found, shown, message=message, layout=layout, psnr=reached)


def _psnr(frames: np.ndarray, others: np.ndarray) -> float:
    """The least of all frames, in dB."""
    difference = frames.astype(np.float64) - others
    return float(np.min(10 * np.log10(255.0**2 / np.mean(difference**2, axis=(1, 2, 3)))))


def collect(films: Iterable[np.ndarray], *, curve: int) -> Iterator[list[dict[str, object]]]:
    """After each film, a row for each size, strength and way; of strengths other than the default, only `curve` films."""
    outcomes: dict[tuple[int, float, str], list[Outcome]] = defaultdict(list)
    for index, film in enumerate(films):
        rng = np.random.default_rng([7, index])
        for size in SIZES:
            for step in AROUND_DEFAULT:
                if step and index >= curve:
                    continue
                psnr = default_psnr(size) + step
                for way, result in measure(film, size, psnr, rng):
                    outcomes[size, psnr, way].append(result)
        print(f"{index + 1} films", flush=True)
        yield [_row(*key, results) for key, results in outcomes.items()]


def _row(size: int, psnr: float, way: str, results: list[Outcome]) -> dict[str, object]:
    columns = [np.array(column, float) for column in zip(*results, strict=True)]
    return {
        "size": size,
        "psnr": psnr,
        "way": way,
        "n": len(results),
        "least_psnr": round(float(columns[0].min()), 2),
        "chips_wrong": round(float(columns[1].mean()), 4),
        "bits": round(float(columns[2].mean()), 4),
        "marks": round(float(columns[3].mean()), 4),
        "wrong": int(columns[4].sum()),
    }


def report(hosts: str, rows: list[dict[str, object]]) -> str:
    """The rows as Markdown: all columns at the default strengths, then marks over strengths."""
    lines = []
    for size in SIZES:
        strengths = sorted({float(str(row["psnr"])) for row in rows if row["size"] == size})
        ways = list(dict.fromkeys(str(row["way"]) for row in rows))
        at = {(row["psnr"], row["way"]): row for row in rows if row["size"] == size}
        usual = default_psnr(size)
        lines += [f"### {hosts}, {size} px, at least {usual:g} dB\n", "| | n | chips wrong | bits | marks | wrong |"]
        lines += ["|---|---|---|---|---|---|"]
        for way in ways:
            row = at[usual, way]
            shares = " | ".join(f"{100 * float(str(row[name])):.1f} %" for name in ("chips_wrong", "bits", "marks"))
            lines.append(f"| {way} | {row['n']} | {shares} | {row['wrong']} |")
        lines += ["", "| marks read at | " + " | ".join(f"{psnr:g} dB" for psnr in strengths) + " |"]
        lines += ["|---" * (len(strengths) + 1) + "|"]
        for way in ways:
            cells = [f"{100 * float(str(at[psnr, way]['marks'])):.1f} %" for psnr in strengths]
            lines.append(f"| {way} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def sheet(film: np.ndarray) -> np.ndarray:
    """A frame, the same marked, and the difference ten times enlarged: at 256 px, and below it at 64 px."""
    rows = []
    for size in (256, 64):
        frame = cv2.resize(film[0], (size, size), interpolation=cv2.INTER_AREA)
        marked = np.asarray(_program(frame[None], make_mark(0x5EA1, size=size, kind="still")))[0]
        difference = np.clip(128 + 10 * (marked.astype(int) - frame), 0, 255).astype(np.uint8)
        row = np.concatenate([frame, marked, difference], axis=1)
        rows.append(cv2.resize(row, (3 * 256, 256), interpolation=cv2.INTER_NEAREST))
    return np.concatenate(rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watermark")
    parser.add_argument("--people", type=int, default=100, help="rendered people")
    parser.add_argument("--curve_people", type=int, default=20, help="of them, those that are marked at all strengths")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="real films, in a table of their own")
    parser.add_argument("--out", type=Path, default=Path("out/watermark"))
    parser.add_argument("--sheet", type=Path, help="PNG to write instead: a head before and after, and the difference")
    options = parser.parse_args()
    if options.sheet:
        record = Provenance(kind=Kind.FIGURE, notes="a rendered CC0 head, marked")
        write_image(options.sheet, sheet(next(rendered(1))), provenance=record)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    hosts = {"Rendered heads": rendered(options.people)}
    if options.clips:
        hosts["Real films"] = seconds_of(options.clips)
    tables: dict[str, list[dict[str, object]]] = {}
    text = ""
    for name, films in hosts.items():
        for tables[name] in collect(films, curve=options.curve_people):  # an interrupted run leaves what it has
            text = "\n".join(report(title, rows) for title, rows in tables.items())
            (options.out / "watermark.json").write_text(json.dumps(tables, indent=1))
            (options.out / "watermark.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
