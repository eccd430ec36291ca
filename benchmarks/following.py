"""What following the driver's face does for drivers who move: `python -m benchmarks.following [--people 3] [--avatar 3]`.

A bundled head, 240 px, is pasted onto a grey frame of 960 x 360 px where it rests, sways (x = 480 + 138 sin(2 pi i / 60)),
walks out and back, and leans back until its face is a third as large. A feed-forward avatar of another bundled head is driven
by each video, with a square that follows the face and with one fixed square a segment. For each: the output frames in which
dlib finds a face, and the landmark error (distance to the landmarks that drove, in interocular distances).

`python -m benchmarks.following --placement` prints instead where faces lie in the bundled training records: the constants of
`th_jax.faces.follow`.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

import th_jax
from th_jax.avatars.file import LoadedAvatar
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.driving.driver import track_driver
from th_jax.driving.placement import Follow
from th_jax.driving.poses import driving_poses
from th_jax.driving.rates import frames_on_screen
from th_jax.evaluation.metrics.faces import landmark_error
from th_jax.faces import detect_faces, face_size, head_center, placement_of, settled_landmarks, yaw
from th_jax.landmarks.methods import Target
from th_jax.landmarks.smooth import OneEuro
from th_jax.provenance import Kind, Provenance, write_video
from th_jax.render import render
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots

_FPS, _FRAMES, _SHOTS = Fraction(25), 120, 8
_HEIGHT, _WIDTH, _HEAD, _GREY = 360, 960, 240, 128
_SEARCH_SIZE = 256
"""Side to which output frames are enlarged before a face is looked for."""

_SHORTEST_POSE = 20
"""Driver frames for which a head keeps its pose: the frames of a record lie a second apart."""


def training_placement() -> dict[str, Float[np.ndarray, "5"]]:
    """Minimum, 1st percentile, median, 99th percentile and maximum over all faces of the bundled training records.

    Returns:
        "share": face size in shares of the frame's side; "x" and "y": the head's center in the same; "turn": degrees.
    """
    records = VideoRecords(bundled_heads(), "train")
    every = np.concatenate([records.read(number).landmarks for number in range(len(records))]).astype(np.float64)
    center = head_center(every)
    values = {"share": face_size(every), "x": center[:, 0], "y": center[:, 1], "turn": yaw(every)}
    return {name: np.percentile(value, (0, 1, 50, 99, 100)) for name, value in values.items()}


def still(_: int) -> tuple[float, float]:
    """A head that rests: its x and its size."""
    return _WIDTH / 2, 1.0


def swaying(index: int) -> tuple[float, float]:
    """A head that moves to and fro by more than its face."""
    return _WIDTH / 2 + 138 * np.sin(2 * np.pi * index / 60), 1.0


def walking(index: int) -> tuple[float, float]:
    """A head that walks from the middle to the border and back, and becomes smaller."""
    away = (1 - np.cos(2 * np.pi * index / _FRAMES)) / 2
    return _WIDTH / 2 + 320 * away, 1 - 0.5 * away


def leaning(index: int) -> tuple[float, float]:
    """A head that leans back, from 0.57 to 0.20 of one square."""
    return _WIDTH / 2, 1 - (1 - 0.20 / 0.57) * (1 - np.cos(2 * np.pi * index / _FRAMES)) / 2


MOTIONS: dict[str, Callable[[int], tuple[float, float]]] = {
    "rests": still, "sways": swaying, "walks": walking, "leans back": leaning,
}  # fmt: skip


def video(path: Path, person: int, motion: Callable[[int], tuple[float, float]], *, frames: int = _FRAMES) -> Path:
    """A bundled head that moves so, on grey."""
    jpegs = VideoRecords(bundled_heads(), "heldout").read(person).frames

    def images() -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index in range(frames):
            head = decode_frame(jpegs[index // _SHORTEST_POSE], size=FRAME_SIZE)
            x, size = motion(index)
            scale = _HEAD / FRAME_SIZE * size
            place = np.array([[scale, 0, x - _HEAD * size / 2], [0, scale, (_HEIGHT - _HEAD * size) / 2]])
            yield cv2.warpAffine(
                head, place, (_WIDTH, _HEIGHT), flags=cv2.INTER_CUBIC, borderValue=(_GREY, _GREY, _GREY)
            )

    return write_video(path, images(), fps=_FPS, provenance=Provenance(kind=Kind.SYNTHETIC_RENDER), crf=12)


def feed_forward_avatar(person: int) -> LoadedAvatar:
    """The bundled weights' avatar of a held-out person."""
    meta = th_jax.load_pretrained("heads64")
    size = meta.networks.image_size
    record = VideoRecords(bundled_heads(), "heldout").read(person)
    chosen = np.linspace(0, len(record.frames) - 1, _SHOTS).round().astype(int)
    frames = np.stack([decode_frame(record.frames[index], size=size) for index in chosen])
    landmarks = record.landmarks[chosen, :68]
    avatar = feed_forward(meta.networks, meta.weights, Shots(frames, landmarks, np.ones(_SHOTS, np.float32)))
    description = {"kind": "full", "provenance": Provenance(kind=Kind.GENERATED).to_dict()}
    return LoadedAvatar(
        networks=meta.networks, avatar=avatar, description=description, digest="0" * 64, landmarks=landmarks
    )


def found_landmarks(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "68 2"] | None:
    """The landmarks of the largest face, in [0, 1]; None without one."""
    large = cv2.resize(frame, (_SEARCH_SIZE, _SEARCH_SIZE), interpolation=cv2.INTER_CUBIC)
    faces = detect_faces(large)
    if not faces:
        return None
    return settled_landmarks(large, max(faces, key=lambda face: face.box.side).box) / _SEARCH_SIZE


class Measured:
    """Output frames with a face and their landmark errors."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self.frames, self.errors = 0, list[float]()

    def add(self, loaded: LoadedAvatar, driver: Path, *, follow: Follow, retargeting: bool) -> None:
        """Drive the avatar, and look for its face."""
        with track_driver(driver, follow=follow, rest=placement_of(loaded.landmarks)) as driving:
            shown = frames_on_screen(driving.times, driving.fps)
            target = Target("shape", loaded.landmarks) if retargeting and loaded.landmarks is not None else None
            poses = driving_poses(driving, shown, fps=driving.fps, smoothing=OneEuro(), target=target)
            points = np.stack(list(itertools.islice(poses, 0, None, 2)))
        for frame, wanted in zip(render(loaded.networks, loaded.avatar, points), points, strict=True):
            self.frames += 1
            if (found := found_landmarks(frame)) is not None:
                self.errors.append(float(landmark_error(found[None], wanted[None])[0]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.following", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=3, help="drivers, of the bundled held-out people")
    parser.add_argument("--avatar", type=int, default=3, help="number of the held-out person that is driven")
    parser.add_argument("--placement", action="store_true", help="print where faces lie in the training records")
    chosen = parser.parse_args()
    if chosen.placement:
        for name, values in training_placement().items():
            least, low, median, high, most = values
            print(f"{name:>6}: {least:.3f} to {most:.3f}, 1 % {low:.3f}, median {median:.3f}, 99 % {high:.3f}")
        return
    loaded = feed_forward_avatar(chosen.avatar)
    drivers = [person for person in range(24) if person != chosen.avatar][4 : 4 + chosen.people]
    print(f"{'follow':8} {'retargeting':11} {'driver':10} {'face found':>10} {'error':>7} {'against rest':>12}")
    choices: list[tuple[Follow, bool]] = [("segment", False), ("segment", True), ("face", False), ("face", True)]
    with tempfile.TemporaryDirectory() as folder:
        videos = {
            name: [video(Path(folder) / f"{person} {name}.mp4", person, motion) for person in drivers]
            for name, motion in MOTIONS.items()
        }
        for follow, retargeting in choices:
            resting = 0.0
            for name, paths in videos.items():
                measured = Measured()
                for path in paths:
                    measured.add(loaded, path, follow=follow, retargeting=retargeting)
                error = float(np.mean(measured.errors)) if measured.errors else float("nan")
                resting = resting or error
                found = f"{len(measured.errors)}/{measured.frames}"
                shape = "shape" if retargeting else "none"
                print(f"{follow:8} {shape:11} {name:10} {found:>10} {error:7.4f} {error / resting - 1:+12.0%}")


if __name__ == "__main__":
    main()
