"""What copied frames and their mean reach on held-out people: a floor for the numbers of trained weights.

python -m benchmarks.baselines --size 64
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from th_jax.console import forgiving_output
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.evaluation.heldout import BASELINES, baseline_frames
from th_jax.evaluation.people import LANDMARKS, load_heldout
from th_jax.evaluation.scores import heldout_scores, real_faces
from th_jax.perceptual.frozen import load_perceptual


def scores_markdown(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Format scores of several systems as a Markdown table: one row per measure, one column per system."""
    systems = list(scores)
    measures = list(dict.fromkeys(measure for column in scores.values() for measure in column))
    rows = [["measure", *systems], ["---", *("---:" for _ in systems)]]
    rows += [[name, *(f"{scores[system].get(name, np.nan):.4f}" for system in systems)] for name in measures]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("--data", type=Path, help='data set with a split "heldout" (default: the bundled heads)')
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    parser.add_argument("--people", type=int, help="only the first so many people")
    parser.add_argument("--landmarks", choices=LANDMARKS, default="true", help="which landmarks are taken for true")
    parser.add_argument("--no-faces", action="store_true", help="measure pixels and features alone, without dlib")
    options = parser.parse_args(arguments)
    try:
        records = VideoRecords(options.data or bundled_heads(), "heldout")
        held = load_heldout(records, image_size=options.size, people=options.people, landmarks=options.landmarks)
        real = None if options.no_faces else real_faces(held)
        perceptual = load_perceptual(["vgg16"])
        scores = {}
        for kind in BASELINES:
            frames = baseline_frames(held, kind)
            scores[kind] = heldout_scores(held, frames, perceptual=perceptual, faces=not options.no_faces, real=real)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    people, targets = held.target_frames.shape[:2]
    print(f"{people} people of {records.videos.name!r} at {options.size} px: {targets} targets from", end=" ")
    print(f"{held.source_frames.shape[1]} sources each\n\n{scores_markdown(scores)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
