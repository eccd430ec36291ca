"""Fine-tunes two people from bundled data and drives both: out/demo.mp4 and out/contact_sheet.png.

A rendered person whom the weights never saw gives eight frames; the astronaut Eileen Collins gives one portrait. `th-jax
finetune` makes their avatars, and a video of a third person drives both.
"""

import argparse
import csv
import dataclasses
import math
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from th_jax.avatars.examples import FPS, SHOTS, consent_of, write_driver, write_shots
from th_jax.avatars.file import LoadedAvatar, load_avatar
from th_jax.cli import finetune
from th_jax.cli.options import DONE, new_parser
from th_jax.consent import write_consent
from th_jax.data.shots import load_shots
from th_jax.driving.driver import track_driver
from th_jax.driving.panels import driver_crops
from th_jax.driving.poses import driving_poses, target_of, wants_pupils
from th_jax.driving.rates import frames_on_screen
from th_jax.faces import placement_of
from th_jax.figures import image_grid, landmark_images
from th_jax.landmarks.smooth import OneEuro
from th_jax.provenance import Kind, Signer, write_image, write_video
from th_jax.provenance.signing_options import add_signing_options, tried_signer
from th_jax.provenance.watermark.messages import Marking, mark_frames, marking_of
from th_jax.render import FEW, render

HEAD_CONSENT, ASTRONAUT_CONSENT = "head.consent.json", "astronaut.consent.json"
COLUMNS = 8
_LEAST_SIDE = 192
"""Side of the shown frames in pixels, at least."""


def gather(folder: Path, *, signer: Signer) -> tuple[Path, Path]:
    """Write the shots, their consent records, the people file and the driving video; returns both."""
    folder.mkdir(parents=True)
    rows = []
    for name, record in (("head", HEAD_CONSENT), ("astronaut", ASTRONAUT_CONSENT)):
        shots = write_shots(name, folder)
        write_consent(folder / record, consent_of(name, shots))
        rows.append([name, shots.name, record])
    with (folder / "people.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "shots", "consent"], *rows])
    video = folder / "driver.mp4"
    write_driver(video, signer=signer)
    return folder / "people.csv", video


def drive(video: Path, avatars: list[LoadedAvatar]) -> list[np.ndarray]:
    """The driver's crops and the landmark images as the first avatar has them, and each avatar's frames with its mark.

    Returns:
        UInt8 `[F, H, W, 3]` each, enlarged.
    """
    rows: list[np.ndarray] = []
    for loaded in avatars:
        size = loaded.networks.image_size
        with track_driver(video, pupils=wants_pupils(loaded, None), rest=placement_of(loaded.landmarks)) as driving:
            shown = frames_on_screen(driving.times, driving.fps)
            # Even onto a single portrait, whose smile stays: the driver's own shape would cost more of the likeness.
            # A single shot is too few for the method "model": dlib's distance to the portrait is 0.62 with it, here 0.57.
            target = target_of(loaded, "shape")
            poses = driving_poses(driving, shown, fps=driving.fps, smoothing=OneEuro(), target=target)
            points = np.stack(list(poses))
            if not rows:
                rows = [enlarged(driver_crops(driving, shown, size=size))]
                rows.append(enlarged(landmark_images(points, size=size)))
        made = enlarged(render(loaded.networks, loaded.avatar, points, chunk=FEW))
        rows.append(np.stack(list(mark_frames(made, marking(loaded).mark))))
    return rows


def enlarged(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Enlarge frames for display."""
    images = np.stack(list(frames))
    scale = scale_of(images.shape[1])
    return np.stack([cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for image in images])


def scale_of(size: int) -> int:
    """How many times frames of this side are enlarged: until they are large enough to look at."""
    return math.ceil(_LEAST_SIDE / size)


def marking(loaded: LoadedAvatar) -> Marking:
    """The watermark of an avatar's enlarged frames: put in after enlarging, which would blur it."""
    size = loaded.networks.image_size
    made = marking_of(loaded.digest, size=scale_of(size) * size, kind="video")
    assert made is not None
    return made


def sheet(rows: list[np.ndarray], shots: list[np.ndarray]) -> np.ndarray:
    """A row each of driver, landmarks and avatars, at some moments; before each avatar one of its shots, enlarged too."""
    moments = np.linspace(0, len(rows[0]) - 1, COLUMNS).round().astype(int)
    blank = np.full_like(rows[0][0], 255)
    cells = zip([blank, blank, *shots], ("driver", "landmarks", "a shot", "the portrait"), strict=True)
    first = [captioned(cell, text) for cell, text in cells]
    return image_grid([[own, *row[moments]] for own, row in zip(first, rows, strict=True)])


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """Write black text on a white strip at the bottom of an image."""
    scale = image.shape[1] / 256
    strip = round(26 * scale)
    made = image.copy()
    made[-strip:] = 255
    place = (round(8 * scale), made.shape[0] - round(8 * scale))
    cv2.putText(made, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * scale, (0, 0, 0), max(1, round(scale)), cv2.LINE_AA)
    return made


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("demo", __doc__, example="th-jax demo --out out")
    made.add_argument("--out", type=Path, default=Path("out"), help="output folder; its folder demo is replaced")
    made.add_argument(
        "--meta", default="heads",
        help="bundled weights: heads (128 px), or heads64 (64 px), which takes about half of the time; default: heads",
    )  # fmt: skip
    add_signing_options(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Collect the data, fine-tune, drive, and write the results."""
    signer = tried_signer(options.signing_key, options.signing_certificate)
    out = options.out
    shutil.rmtree(out / "demo", ignore_errors=True)
    people_file, video = gather(out / "demo" / "people", signer=signer)
    command = ["--meta", options.meta, "--people-file", str(people_file), "--out", str(out / "demo"), "--preview"]
    named = {"--signing-key": options.signing_key, "--signing-certificate": options.signing_certificate}
    command += [part for name, file in named.items() if file is not None for part in (name, str(file.resolve()))]
    print(f"$ th-jax finetune {shlex.join(command)}", flush=True)
    if code := finetune.run(finetune.parser().parse_args(command)):
        return code
    people = ("head", "astronaut")
    avatars = [load_avatar(out / "demo" / f"{name}.safetensors", meta=options.meta) for name in people]
    rows = drive(video, avatars)
    size = avatars[0].networks.image_size
    files = ("head", "astronaut.jpg")
    shots = enlarged(
        np.asarray(load_shots(out / "demo" / "people" / name, size=size, shots=1).frames[0]) for name in files
    )
    record = dataclasses.replace(
        avatars[1].provenance, kind=Kind.COMPOSITE, watermark=marking(avatars[1]).message,
        inputs=tuple(digest for one in reversed(avatars) for digest in one.provenance.inputs),
        notes=f"beside it the avatar of a rendered head, {avatars[0].digest}, watermark {marking(avatars[0]).message}",
    )  # fmt: skip
    frames = (np.concatenate([row[f] for row in rows], axis=1) for f in range(len(rows[0])))
    write_video(out / "demo.mp4", frames, fps=FPS, provenance=record, signer=signer)
    write_image(out / "contact_sheet.png", sheet(rows, list(shots)), provenance=record, signer=signer)
    print(
        f"{out / 'demo.mp4'}: driver, landmarks, the rendered head from {SHOTS} frames, the astronaut from one portrait"
    )
    print(f"{out / 'contact_sheet.png'}: the same at {COLUMNS} moments, with a shot of each person on the left")
    return DONE
