"""`th-jax animate`: drives an avatar with a video, landmarks or a camera."""

import argparse
import collections
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from th_jax.avatars.file import LoadedAvatar, load_avatar
from th_jax.avatars.output import REPORT_FILE, has_other_landmark_model
from th_jax.avatars.shards import ShardInUseError
from th_jax.cli.options import (
    DONE,
    FACE_HELP,
    FAILED,
    INTERRUPTED,
    UsageError,
    add_landmark_model,
    face_number,
    new_parser,
    print_hint,
)
from th_jax.cli.shard_options import add_shard_options, only_report, requested_shard
from th_jax.consent import check_driving
from th_jax.driving.animate import GAZE, Animation, animate, smoothing_of
from th_jax.driving.camera import Chooser, camera_number, drive_with_camera, missing_window
from th_jax.driving.driver import STILLS
from th_jax.driving.edit import CONTROLS, edit_driver
from th_jax.driving.many import VideoRequest, make_videos, read_list, videos_of_shard
from th_jax.driving.output import note_unmarked, unmarked_log
from th_jax.driving.panels import Panel, parse_layout
from th_jax.driving.poses import target_of, wants_pupils
from th_jax.driving.same_person import RETARGETING, compare_faces, known_choice
from th_jax.landmarks.methods import Target, check_method
from th_jax.landmarks.smooth import LandmarkFilter, OneEuro
from th_jax.landmarks.transfer import UNCHANGED, Gains, parse_gains
from th_jax.media import VIDEO_SUFFIXES
from th_jax.provenance import Signer, unmarked_path
from th_jax.provenance.signing_options import add_signing_options, tried_signer
from th_jax.render import CHUNK
from th_jax.storage.files import check_place


def less_memory(options: argparse.Namespace) -> str:
    """Return what to change if memory is too small."""
    return f"lower --chunk, which is {options.chunk}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "animate",
        "Makes a video, GIF or still of an avatar that moves like the person in a video, a file of landmarks, or a camera.",
        example="th-jax animate --avatar avatars/ada.safetensors --driver speech.mp4 --out ada.mp4",
    )
    made.add_argument("--avatar", type=Path, help="avatar file")
    made.add_argument("--meta", help="meta weights of a compact avatar: file, run or name; default: the bundled ones")
    made.add_argument("--driver", help="video, landmarks.npz, motion.csv, or camera:0")
    made.add_argument(
        "--edit", metavar="NAME=VALUE,...",
        help=f"still without a driver: 0 to 1 for expressions, degrees for angles; {', '.join(CONTROLS)}",
    )  # fmt: skip
    made.add_argument(
        "--list", type=Path, metavar="FILE",
        help="many videos: a CSV file with the columns avatar,driver,out(,face); --out is then their folder",
    )  # fmt: skip
    add_shard_options(made, what="make the videos")
    made.add_argument("--out", type=Path, help="output file, ending in .mp4, .gif, .png or .jpg")
    made.add_argument("--layout", help='panels from left to right, such as "driver,landmarks,avatar"; default: avatar')
    made.add_argument("--smoothing", type=float, help="cutoff in Hz, 0 is off; default: 2 for videos, off for npz")
    made.add_argument("--smoothing-beta", type=float, default=OneEuro().beta, help="higher follows motion faster")
    made.add_argument(
        "--retargeting", choices=RETARGETING, default="auto",
        help="adapt landmarks to the avatar's face; auto: model for another person's face, none for the avatar's own",
    )  # fmt: skip
    made.add_argument(
        "--gains", metavar="REGION=FACTOR,...",
        help="retargeting model: 0 to 2 for pose, brows, eyes, gaze, mouth",
    )  # fmt: skip
    made.add_argument(
        "--neutral", type=float, metavar="SECONDS",
        help="retargeting model: time at which the driver's face is neutral; default: estimated",
    )  # fmt: skip
    made.add_argument(
        "--follow",
        choices=("face", "segment"),
        default="face",
        help="crop that moves with the face, or one fixed crop per segment",
    )
    made.add_argument("--face", type=face_number, metavar="N", help=FACE_HELP)
    made.add_argument("--strict", action="store_true", help="treat frames outside the training range as an error")
    made.add_argument("--gaze", choices=("auto", "on", "off"), default="auto", help="detect the driver's pupils")
    made.add_argument("--fps", type=float, help="frame rate of landmarks.npz")
    made.add_argument("--seconds", type=float, help="use only this many seconds from the driver's start")
    made.add_argument("--at", type=float, default=0.0, help="time of the frame in seconds, for a still image")
    made.add_argument(
        "--paste-back", type=Path, metavar="IMAGES",
        help="put the face into the driver's whole frames; IMAGES are the avatar's own, to check that this is the same person",
    )  # fmt: skip
    made.add_argument("--mute", action="store_true", help="omit the driver's sound")
    made.add_argument("--require-audio", action="store_true", help="fail if the driver's sound cannot be kept")
    made.add_argument("--consents", type=Path, help="consent record, or a folder of records, to check for revocation")
    made.add_argument(
        "--unmarked-output-for-research", action="store_true",
        help="omit watermark and manifest; the file's name and the avatar's log record it",
    )  # fmt: skip
    made.add_argument("--chunk", type=int, default=CHUNK, help="frames that are generated together")
    add_signing_options(made)
    add_landmark_model(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Drive the avatar; an interrupted run leaves nothing behind, one of a list the finished videos."""
    if options.list is not None:
        return _drive_list(options)
    if options.avatar is None:
        raise UsageError("give --avatar, or --list for many videos")
    if options.shard is not None or options.shard_count is not None:
        raise UsageError("--shard and --shard-count are parts of a list: give --list")
    try:
        print(_drive(options))
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED
    return DONE


def _drive(chosen: argparse.Namespace) -> str:
    if (chosen.driver is None) == (chosen.edit is None):
        raise UsageError("give either --driver or --edit")
    if chosen.edit is None:
        return _driven(chosen)
    if chosen.out is None or chosen.out.suffix.lower() not in STILLS:
        raise UsageError(f"--edit makes a still: --out must end in {', '.join(STILLS)}")
    with edit_driver(chosen.edit) as driver:
        chosen.driver = str(driver)
        return _driven(chosen)


def _drive_list(chosen: argparse.Namespace) -> int:
    """Make the videos of a list; return 0 if all are there, 1 if one failed, 75 if the run was interrupted."""
    own = ("avatar", "driver", "edit", "face", "paste_back")
    if extra := [f"--{name.replace('_', '-')}" for name in own if getattr(chosen, name) is not None]:
        raise UsageError(
            f"{', '.join(extra)} cannot be given with --list, which has columns for avatar, driver and face"
        )
    if chosen.unmarked_output_for_research:
        raise UsageError("--unmarked-output-for-research is for one video at a time: omit --list")
    if chosen.out is None:
        raise UsageError("--out is missing: the folder of the videos")
    requests, shard = read_list(chosen.list), requested_shard(chosen)
    check_place(chosen.out, folder=True)
    gains = _checked_gains(chosen)
    _check_smoothing(smoothing_of("any.mp4", chosen.smoothing, beta=chosen.smoothing_beta))
    layout = parse_layout(chosen.layout or "avatar")
    signer = tried_signer(chosen.signing_key, chosen.signing_certificate)
    report = REPORT_FILE
    if shard is not None:
        requests, text = videos_of_shard(requests, shard)
        report = shard.report_file
        print(text, flush=True)

    def make(loaded: LoadedAvatar, request: VideoRequest, out: Path) -> Animation:
        return _animate(
            loaded, request.driver, out, chosen, layout=layout, gains=gains, signer=signer, face=request.face
        )

    counts, there = collections.Counter[str](), 0
    videos = make_videos(
        requests, chosen.out, make=make, options=_film_options(chosen), report=report,
        load=lambda avatar: load_avatar(avatar, meta=chosen.meta),
    )  # fmt: skip
    try:
        with only_report(chosen.out, report), tqdm(total=len(requests), unit="video", disable=None) as bar:
            for video, was_there in videos:
                bar.update()
                counts[video.status] += 1
                there += was_there
                if video.status == "failed":
                    bar.write(f"{video.out}: {video.reason}", file=sys.stderr)
    except ShardInUseError as error:
        print(f"th-jax animate: {error}, then run the same command again", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted: finished videos are kept; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    already = f" ({there} already before)" if there else ""
    failed = f", {counts['failed']} failed: see {chosen.out / report}" if counts["failed"] else ""
    print(f"{counts['finished']} of {len(requests)} videos are in {chosen.out}{already}{failed}")
    return FAILED if counts["failed"] else DONE


def _film_options(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the options that change what a video shows, as JSON values."""
    names = (
        *("meta", "layout", "smoothing", "smoothing_beta", "retargeting", "gains", "neutral", "follow", "gaze", "fps"),
        *("seconds", "at", "mute", "landmark_model"),
    )
    return {name: getattr(chosen, name) for name in names}


def _checked_gains(chosen: argparse.Namespace) -> Gains:
    gains = parse_gains(chosen.gains) if chosen.gains is not None else UNCHANGED
    if chosen.retargeting != "auto":
        check_method(chosen.retargeting, gains=gains)
    return gains


def _check_smoothing(smoothing: OneEuro | None) -> None:
    if smoothing is not None:
        LandmarkFilter(smoothing)  # raises for invalid settings


def _animate(
    loaded: LoadedAvatar,
    driver: str | Path,
    out: Path,
    chosen: argparse.Namespace,
    *,
    layout: tuple[Panel, ...],
    gains: Gains,
    signer: Signer | None,
    face: int | None,
) -> Animation:
    """Drive an avatar with the options of the command."""
    smoothing = smoothing_of(driver, chosen.smoothing, beta=chosen.smoothing_beta)
    return animate(
        loaded, driver, out, layout=layout, smoothing=smoothing, retargeting=chosen.retargeting,
        gains=gains, neutral=chosen.neutral, face=face,
        follow=chosen.follow, strict=chosen.strict, gaze=GAZE[chosen.gaze], fps=chosen.fps, seconds=chosen.seconds,
        at=chosen.at, paste_back=chosen.paste_back, sound=not chosen.mute, require_audio=chosen.require_audio,
        chunk=chosen.chunk, consents=chosen.consents, signer=signer, progress=chosen.list is None,
        unmarked_for_research=chosen.unmarked_output_for_research,
    )  # fmt: skip


def _driven(chosen: argparse.Namespace) -> str:
    number = camera_number(chosen.driver)
    smoothing = smoothing_of(chosen.driver, chosen.smoothing, beta=chosen.smoothing_beta)
    _check_smoothing(smoothing)
    gains = _checked_gains(chosen)
    layout = parse_layout(chosen.layout or ("avatar" if number is None else "driver,avatar"))
    gaze = GAZE[chosen.gaze]
    if number is None and chosen.out is None:
        raise ValueError("--out is missing: the file to write")
    if number is not None and chosen.neutral is not None:
        raise ValueError("a camera's neutral expression is a running estimate: omit --neutral")
    if number is not None and chosen.face is not None:
        raise ValueError("a camera follows the most prominent face: omit --face")
    if number is not None and chosen.paste_back is not None:
        raise ValueError("--paste-back needs a recorded driver, but this is a camera: omit --paste-back")
    if number is not None and chosen.strict:
        raise ValueError("--strict needs a recorded driver, but this is a camera: omit --strict")
    if number is not None and chosen.out is not None:
        raise ValueError("a camera is shown in a window and not recorded: omit --out")
    if number is not None and (reason := missing_window()) is not None:
        raise ValueError(f"a camera needs a preview window, but {reason}: record a video and give it as the driver")
    signer = None
    if number is None and not chosen.unmarked_output_for_research:
        signer = tried_signer(chosen.signing_key, chosen.signing_certificate)
    elif chosen.signing_key is not None or chosen.signing_certificate is not None:
        option = "--signing-certificate" if chosen.signing_key is None else "--signing-key"
        raise ValueError(f"camera frames and unmarked output are not signed: omit {option}")
    loaded = load_avatar(chosen.avatar, meta=chosen.meta)
    is_tracked = number is not None or Path(chosen.driver).suffix.lower() in VIDEO_SUFFIXES
    if is_tracked and has_other_landmark_model(loaded.notes):
        print_hint(
            f"{chosen.avatar} was made with another landmark model, which places some points elsewhere: give the "
            "--landmark-model of its th-jax finetune"
        )
    if number is not None:
        check_driving(loaded.description, consents=chosen.consents)
        target = _live_target(loaded, chosen, gains)
        pupils = wants_pupils(loaded, gaze)
        shown = drive_with_camera(
            loaded, number, layout=layout, smoothing=smoothing, target=target, pupils=pupils, follow=chosen.follow
        )
        return f"camera {number}: {shown} frames shown"
    out = unmarked_path(chosen.out) if chosen.unmarked_output_for_research else chosen.out
    if chosen.unmarked_output_for_research:
        note_unmarked(unmarked_log(chosen.avatar), out, avatar=loaded.digest)
    done = _animate(loaded, chosen.driver, out, chosen, layout=layout, gains=gains, signer=signer, face=chosen.face)
    return _summary(done)


def _live_target(loaded: LoadedAvatar, chosen: argparse.Namespace, gains: Gains) -> Target | Chooser | None:
    """Return the target of a camera's motion, or with --retargeting auto a function that chooses it for each new face."""
    choice = known_choice(loaded, Path(chosen.driver), chosen.retargeting, gains=gains)
    if choice is not None:
        if choice.reason:
            print(choice, flush=True)
        return target_of(loaded, choice.method, gains=gains)

    def choose(driver: Float[np.ndarray, "S 68 2"]) -> Target | None:
        assert loaded.landmarks is not None
        found = compare_faces(loaded.landmarks, driver)
        print(found, flush=True)
        return target_of(loaded, found.method)

    return choose


def _summary(done: Animation) -> str:
    missing = f": the driver's {done.missing_sound}" if done.missing_sound else ""
    frames = (
        f"{done.frames} frames at {float(done.fps):g} frames/s, {'with' if done.sound else 'without'} sound{missing}"
    )
    notes = [f"{done.without_face} without a face repeat the last pose"] if done.without_face else []
    notes += [f"{done.segments} segments, with cuts or gaps between them"] if done.segments > 1 else []
    if done.rivals:
        where = "in 1 searched frame" if done.rivals == 1 else f"in {done.rivals} searched frames"
        notes.append(f"another face is as prominent {where}: choose one with --face (th-jax faces)")
    notes += [str(done.out_of_range)] if done.out_of_range.frames else []
    notes += [str(done.retargeting)] if done.retargeting.reason else []
    notes += [f"{done.damaged_frames} damaged frames of the driver left out"] if done.damaged_frames else []
    return "; ".join([f"{done.path}: {frames}", *notes])
