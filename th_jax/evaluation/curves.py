"""Plots training curves from the metrics.jsonl files of runs: `th-jax curves`.

Requires the extra "report" (matplotlib).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from th_jax.optional import install_command

PANELS = (
    "loss/content",
    "heldout/l1/box",
    "heldout/landmark_error/with_failures",
    "heldout/vgg16_distance",
    "heldout/identity/centred_cosine/with_failures",
    "health/embedding_spread",
    "health/adversary_share",
    "score/real",
    "score/fake",
)
BASELINES = {"nearest_copy": "nearest copy", "mean_frame": "mean frame", "real": "real frame"}


def series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and values of one metric, without values that are not finite."""
    found = [(line["step"], float(line[name])) for line in lines if name in line]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], *, panels: Sequence[str] = PANELS) -> np.ndarray:
    """Draw one panel per metric and one line per run; dashed lines are the baselines on the same held-out frames.

    `runs` has the metrics of each run by name, as returned by `read_metrics`. Panels that no run has are left out.

    Returns:
        UInt8 `[H, W, 3]`.

    Raises:
        ValueError: if no run has any of the metrics.
        ImportError: if matplotlib is not installed; the message gives the command that installs it.
    """
    shown = [name for name in panels if any(len(series(lines, name)[0]) for lines in runs.values())]
    if not shown:
        raise ValueError(f"none of the runs ({', '.join(runs) or 'none given'}) has any of {', '.join(panels)}")
    figure = _new_figure(rows=-(-len(shown) // 3))
    for place, name in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 3), 3, place + 1, title=name)
        for run, lines in runs.items():
            axes.plot(*series(lines, name), label=run, linewidth=1.2)
        for kind, label in BASELINES.items():
            baseline = name.replace("heldout/", f"heldout/{kind}/", 1)
            values = [v for lines in runs.values() for v in series(lines, baseline)[1]] if baseline != name else []
            if values:
                axes.axhline(values[-1], linestyle="--", linewidth=0.8, color="grey")
                axes.annotate(label, (0.01, values[-1]), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(9)
        if place == 0:
            axes.legend(fontsize=7)
    figure.tight_layout()
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def _new_figure(*, rows: int) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"plots require matplotlib: {install_command('report')}") from error
    figure = Figure(figsize=(12, 2.6 * rows), dpi=90)
    FigureCanvasAgg(figure)
    return figure
