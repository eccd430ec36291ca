"""`th-jax track`: the motion of a face in a video, as 52 ARKit coefficients and the head's pose per frame."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, FACE_HELP, add_landmark_model, face_number, new_parser


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = new_parser(
        "track",
        "Writes the motion of the face in a video: ARKit's 52 coefficients and the head's pose for each frame.",
        example="th-jax track speech.mp4 --out motion.csv",
    )
    made.add_argument("video", type=Path, help="a video of a face")
    made.add_argument("--out", type=Path, required=True, help="the file to write, ending in .csv or .json")
    made.add_argument("--seconds", type=float, help="of the video to use, from its start")
    made.add_argument("--face", type=face_number, metavar="N", help=FACE_HELP)
    add_landmark_model(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Track the face and write its motion.

    Raises:
        ValueError, MediaError: for options or a video that cannot be used.
        OSError: if a file cannot be read or written.
    """
    import numpy as np

    from th_jax.driving.driver import track_driver
    from th_jax.driving.motion import check_motion_suffix, frames_with_face, motion_of, write_motion
    from th_jax.driving.poses import driver_sample
    from th_jax.landmarks.transfer import fit_face
    from th_jax.storage.files import check_place

    check_motion_suffix(options.out)
    check_place(options.out)
    if options.seconds is not None and not 0 < options.seconds < float("inf"):
        raise ValueError(f"--seconds must be above 0 and finite, but is {options.seconds}")
    with track_driver(options.video, pupils=True, seconds=options.seconds, face=options.face) as driving:
        face = fit_face(driver_sample(driving))
        motion = motion_of(np.array(driving.landmarks), driving.times, face=face)
    write_motion(options.out, motion)
    count = int(frames_with_face(motion).sum())
    print(f"{options.out}: {len(motion.times)} frames, {count} with a face")
    return DONE
