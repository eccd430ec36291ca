"""How well `--retargeting auto` tells an avatar's own person from others: `python -m benchmarks.same_person [--people 24]`.

8 shots and other frames of each bundled head are compared by the identities fitted to dlib's landmarks, as `auto` does, and by
dlib's face network, on the frames themselves and on frames of feed-forward avatars with the landmarks of the shots. Prints
the area under the ROC curve, and both errors: at the threshold of `auto`, and for the network where 5 % of other people are
taken for the own. The threshold was chosen with `--split train --people 40`.
"""

import argparse

import numpy as np
from jaxtyping import Float, UInt8

import th_jax
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.driving.same_person import SAME_PERSON, identity
from th_jax.evaluation.face_measures import measure_faces
from th_jax.render import render
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots

_SHOTS, _COMPARED = 8, 5
"""Shots of an avatar, and frames that the face network sees of each."""


def report(name: str, every: Float[np.ndarray, "N N"], threshold: float | None) -> None:
    """Print a line for the distances of each avatar (row) to each person (column)."""
    same, other = np.diag(every), every[~np.eye(len(every), dtype=bool)]
    limit = float(np.quantile(other, 0.05)) if threshold is None else threshold
    area = (same[:, None] < other[None]).mean()
    lost, taken = (same >= limit).mean(), (other < limit).mean()
    print(
        f"{name}: area {area:.3f}; below {limit:.3f}, own taken for another {lost:.1%}, another for the own {taken:.1%}"
    )


def main() -> None:
    """Print the errors of each way to compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_person")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--split", choices=("train", "heldout"), default="heldout")
    parser.add_argument("--shots", type=int, default=_SHOTS)
    options = parser.parse_args()
    records, meta = VideoRecords(bundled_heads(), options.split), th_jax.load_pretrained("heads64")
    size = meta.networks.image_size
    shots, drivers, faces = [], [], []

    def mean_descriptor(frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "128"]:
        return np.asarray(np.nanmean(measure_faces(frames).descriptors, axis=0))

    for person in range(options.people):
        record = records.read(person)
        chosen = np.linspace(0, len(record.frames) - 1, options.shots).round().astype(int)
        others = np.setdiff1d(np.arange(2, len(record.frames), 3), chosen)
        for group, indices in ((shots, chosen), (drivers, others)):
            frames = np.stack([decode_frame(record.frames[index], size=FRAME_SIZE) for index in indices])
            group.append(measure_faces(frames, descriptors=False).landmarks)
        seen = np.stack([decode_frame(record.frames[index], size=size) for index in chosen])
        real_frames = np.stack([decode_frame(record.frames[index], size=size) for index in others[::4][:_COMPARED]])
        points = record.landmarks[chosen, :68]
        avatar = feed_forward(meta.networks, meta.weights, Shots(seen, points, np.ones(len(chosen), np.float32)))
        made = render(meta.networks, avatar, points[:_COMPARED])
        faces.append([mean_descriptor(frames) for frames in (seen[:_COMPARED], made, real_frames)])
    own, generated, real = np.stack(faces, axis=1)
    mine, theirs = (np.stack([identity(points) for points in group]) for group in (shots, drivers))
    report("identities of landmarks", 1 - mine @ theirs.T, SAME_PERSON)
    report("face network, avatar's frames", np.linalg.norm(generated[:, None] - real[None], axis=-1), None)
    report("face network, shots", np.linalg.norm(own[:, None] - real[None], axis=-1), None)


if __name__ == "__main__":
    main()
