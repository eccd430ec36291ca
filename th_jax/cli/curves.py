"""`th-jax curves`: plots the metrics of training runs."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "curves", "Plots the metrics of training runs, several runs in one image.",
        example="th-jax curves runs/heads_64 runs/heads_128 --out curves.png",
    )  # fmt: skip
    made.add_argument("runs", type=Path, nargs="+", help="folders of runs, or metrics.jsonl files")
    made.add_argument("--out", type=Path, required=True, help="output image")
    made.add_argument("--panel", action="append", help="metric to plot; may be given several times")
    return made


def run(options: argparse.Namespace) -> int:
    """Read the metrics and write the plot."""
    from th_jax.evaluation.curves import PANELS, draw_curves
    from th_jax.provenance import Kind, Provenance, write_image
    from th_jax.storage.run_folder import read_metrics

    files = [path / "metrics.jsonl" if path.is_dir() else path for path in options.runs]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise ValueError(f"there are no metrics at {', '.join(missing)}")
    names = [path.parent.name if path.stem == "metrics" else path.stem for path in files]
    if len(set(names)) < len(names):  # runs of one name in several folders
        names = [str(path) for path in options.runs]
    runs = {name: read_metrics(path) for name, path in zip(names, files, strict=True)}
    image = draw_curves(runs, panels=options.panel or PANELS)
    write_image(options.out, image, provenance=Provenance(kind=Kind.FIGURE, notes="curves of training runs"))
    print(options.out)
    return DONE
