"""The tables of `benchmarks.watermark`: shares over videos, as rows for JSON and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from th_jax.provenance.watermark.embed import default_psnr

Key = tuple[int, float, str]
"""Size in pixels, strength in dB, and way."""

Row = dict[str, Any]


def rows_of(outcomes: Mapping[Key, Mapping[str, Sequence[float]]]) -> list[Row]:
    """A row for each size, strength and way, over its videos by name."""
    return [_row(*key, videos) for key, videos in outcomes.items()]


def _row(size: int, psnr: float, way: str, videos: Mapping[str, Sequence[float]]) -> Row:
    least, chips, bits, read, wrong = (np.array(column, float) for column in zip(*videos.values(), strict=True))
    return {
        "size": size,
        "psnr": psnr,
        "way": way,
        "n": len(videos),
        "least_psnr": round(float(least.min()), 2),
        "chips_wrong": round(float(chips.mean()), 4),
        "bits": round(float(bits.mean()), 4),
        "marks": round(float(read.mean()), 4),
        "wrong": int(wrong.sum()),
        "missed": [name for name, found in zip(videos, read, strict=True) if not found],
    }


def report(hosts: str, rows: Sequence[Row]) -> str:
    """The rows as Markdown: chips and marks at the default strengths, what was missed, then marks over strengths."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    at = {(row["size"], row["psnr"], row["way"]): row for row in rows}
    count = max(row["n"] for row in rows)
    lines = [f"### {hosts}: {count}\n"]
    usual = [f"{size} px, {default_psnr(size):g} dB: chip errors | detected" for size in sizes]
    lines += _table(
        ["", *usual],
        [
            [way, *(_shares(at[size, default_psnr(size), way], "chips_wrong", "marks") for size in sizes)]
            for way in ways
        ],
    )
    lines.append(f"Messages found that were never embedded: {sum(row['wrong'] for row in rows)}.\n")
    for size in sizes:
        missed = {way: at[size, default_psnr(size), way]["missed"] for way in ways}
        lines += [f"- {size} px, {way}: missed {', '.join(names)}" for way, names in missed.items() if names]
    for size in sizes:
        strengths = sorted({row["psnr"] for row in rows if row["size"] == size})
        if len(strengths) > 1:
            videos = {psnr: at[size, psnr, ways[0]]["n"] for psnr in strengths}
            of = {psnr: "" if n == count else f" (of {n})" for psnr, n in videos.items()}
            heads = [f"{size} px, detected at", *(f"{psnr:g} dB{of[psnr]}" for psnr in strengths)]
            lines += ["", *_table(heads, [[w, *(_shares(at[size, p, w], "marks") for p in strengths)] for w in ways])]
    return "\n".join(lines) + "\n"


def _shares(row: Row, *names: str) -> str:
    return " | ".join(f"{100 * row[name]:.0f} %" for name in names)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    first = "| " + " | ".join(heads) + " |"
    return [first, "|---" * (first.count("|") - 1) + "|", *("| " + " | ".join(row) + " |" for row in rows), ""]
