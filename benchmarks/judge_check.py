"""Does a face network tell the people of a data set apart? Distances of frames of one and of two people.

python -m benchmarks.judge_check --identity-network mobilefacenet=MobileFaceNet.tflite --data bundled
"""

import argparse
import itertools
import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from th_jax.console import forgiving_output
from th_jax.data.episodes import decode_frame
from th_jax.data.records import VideoRecords
from th_jax.evaluation import metrics
from th_jax.evaluation.face_measures import measure_faces
from th_jax.evaluation.judges.identity import identity_features, load_identity_network
from th_jax.evaluation.judges.named import named_files

DLIB = "dlib"


def distances_markdown(
    features: Float[np.ndarray, "N D"], people: Shaped[np.ndarray, " N"], *, name: str
) -> tuple[str, float]:
    """A row of a table, and how often a pair of one person is nearer than a pair of two (area under the curve).

    Args:
        features: a row a frame; NaN where no face was found.
        people: who is in each frame.
        name: of the network.

    Raises:
        ValueError: if there are no two frames of one person, or no two people, with found faces.
    """
    known = np.isfinite(features).all(1)
    features, people = features[known], people[known]
    means = np.stack([features[people == person].mean(0) for person in dict.fromkeys(people.tolist())])
    first, second = map(list, zip(*itertools.combinations(range(len(people)), 2), strict=True))
    same = people[first] == people[second]
    if same.all() or not same.any():
        raise ValueError("two frames of one person and two people are needed to be told apart")
    l2 = metrics.identity_l2(features[first], features[second])
    cosine = metrics.centred_cosine(features[first], features[second], mean=means.mean(0))
    order = np.concatenate([l2[same], l2[~same]]).argsort().argsort()
    count, others = int(same.sum()), int((~same).sum())
    below = count * others - (order[:count].sum() - count * (count - 1) / 2)
    auc = float(below / (count * others))
    texts = [f"{np.mean(v):.3f} ± {np.std(v):.3f}" for v in (l2[same], l2[~same], cosine[same], cosine[~same])]
    return f"| {name} | {' | '.join(texts)} | {auc:.4f} |", auc


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.judge_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--identity-network", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--data", default="bundled", help='data set, or "bundled" for the bundled heads')
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--frames", type=int, default=4, help="of each video, spread evenly")
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    options = parser.parse_args(arguments)
    try:
        networks = [
            load_identity_network(*item) for item in named_files(options.identity_network, taken={DLIB}).items()
        ]
        records = VideoRecords(options.data, options.split)
        frames, people = _frames(records, options.frames, options.size)
        faces = measure_faces(frames)
        rows = {DLIB: faces.descriptors.astype(np.float64)}
        rows |= {one.name: identity_features(one, frames, faces.landmarks) for one in networks}
        lines = [distances_markdown(row, people, name=name)[0] for name, row in rows.items()]
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    unseen = int(np.isnan(faces.landmarks).any((1, 2)).sum())
    count = len(set(people.tolist()))
    print(f"{count} people of {records!r}: {len(frames)} frames at {options.size} px, {unseen} without a face")
    print(
        "\n| network | L2, one person | L2, two people | cosine, one person | cosine, two people | area under the curve |"
    )
    print("|---|---:|---:|---:|---:|---:|", *lines, sep="\n")
    return 0


def _frames(records: VideoRecords, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    frames, people = [], []
    for number in range(len(records)):
        record = records.read(number)
        for place in np.unique(np.linspace(0, len(record.frames) - 1, count).round().astype(int)):
            frames.append(decode_frame(record.frames[place], size=size))
            people.append(record.identity)
    if not frames:
        raise ValueError(f"{records!r} is empty: there are no people to compare")
    return np.stack(frames), np.array(people)


if __name__ == "__main__":
    sys.exit(main())
