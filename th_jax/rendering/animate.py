"""Drives an avatar: a film of somebody's face, or a file of landmarks, becomes a film of the avatar with the same sound.

`python -m th_jax.rendering.animate --avatar ada.safetensors --driver speech.mp4 --out ada.mp4`

The driver is looked at twice, as a stream each time: first for landmarks, then, only if the layout shows it, for pictures.
Memory does not grow with its length.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from th_jax.avatars import LoadedAvatar, load_avatar
from th_jax.consent import check_driving
from th_jax.console import forgiving_output
from th_jax.faces import placement_of
from th_jax.interruption import interrupting
from th_jax.media import Signer, unmarked_path
from th_jax.media.signing_options import tried_signer
from th_jax.media.write import check_target
from th_jax.memory import is_out_of_memory
from th_jax.rendering.animate_options import options_parser
from th_jax.rendering.camera import camera_number, drive_with_camera, missing_window
from th_jax.rendering.driver_headers import GIF_FPS, GIF_FRAMES, STILLS, SUFFIXES, check_length, decided_sound
from th_jax.rendering.frame_rate import frames_on_screen
from th_jax.rendering.landmark_source import Driving, is_landmark_file, read_landmarks, track_driver
from th_jax.rendering.layout import Panel, driver_crops, parse_layout, side_by_side
from th_jax.rendering.output import note_unmarked, record_of_driving, unmarked_log, write_frames
from th_jax.rendering.placement import Follow, OutOfRange, check_range
from th_jax.rendering.poses import driving_poses, target_shape, wants_pupils
from th_jax.rendering.render import CHUNK, draw_stream, render_stream
from th_jax.rendering.smoothing import LandmarkFilter, OneEuro
from th_jax.retargeting import Retargeting
from th_jax.watermark.messages import marking_of
from th_jax.whole_file import check_place

_STILL_SECONDS = 1.0
"""Of the driver that are followed beyond the moment of a still."""

Frames = Iterator[UInt8[np.ndarray, "H W 3"]]


class Animation(NamedTuple):
    """What was written."""

    path: Path
    frames: int
    fps: Fraction
    without_face: int
    """Frames that repeat the last pose because the driver's face was not found."""
    segments: int
    """Stretches of the driver, each with squares of its own."""
    damaged_frames: int
    """Frames of the driver that could not be decoded."""
    sound: bool
    """Whether there is sound, other than silence throughout."""
    out_of_range: OutOfRange
    """Frames whose landmarks lie outside of what the weights learned."""
    missing_sound: str | None = None
    """If sound was wanted, why the driver gives none: "is silent throughout"."""


def animate(
    loaded: LoadedAvatar,
    driver: str | Path,
    out: str | Path,
    *,
    layout: tuple[Panel, ...] = ("avatar",),
    smoothing: OneEuro | None = None,
    retargeting: Retargeting = "none",
    follow: Follow = "face",
    strict: bool = False,
    gaze: bool | None = None,
    fps: float | None = None,
    seconds: float | None = None,
    at: float = 0.0,
    sound: bool = True,
    require_audio: bool = False,
    chunk: int = CHUNK,
    consents: Path | None = None,
    signer: Signer | None = None,
    unmarked_for_research: bool = False,
    progress: bool = False,
) -> Animation:
    """Write the avatar with the driver's motion: a film, a GIF or a still, by the ending of `out`, with its provenance.

    Args:
        loaded: the avatar.
        driver: a local video, or an npz file of landmarks (`read_landmarks`).
        out: ends in .mp4, .gif, .png or .jpg; whole or not there at all.
        layout: panels from left to right.
        smoothing: settings of the filter of the landmarks; none by default.
        retargeting: "shape" moves the driver's motion to the face of the avatar's shots.
        follow: "face" for squares that move with the driver's face, "segment" for a fixed one for each segment.
        strict: whether frames outside of what the weights learned are an error, raised before anything is generated.
        gaze: whether the driver's pupils are looked for; by default if the avatar's shots have them.
        fps: of a file of landmarks.
        seconds: of the driver to use, from its start; all by default.
        at: seconds into the driver, for a still.
        sound: whether a film keeps the driver's sound, if something can be heard.
        require_audio: refuse, before the work, a driver whose sound cannot be kept.
        chunk: frames that are generated together.
        consents: a consent record or a folder of them, to see whether the avatar's was revoked (`check_driving`).
        signer: signs the manifest; `load_signer` chooses by default.
        unmarked_for_research: leaves watermark and manifest out; the name must say so (`th_jax.media.unmarked_path`).
        progress: whether to show a bar, on a terminal.

    Raises:
        ValueError, MediaError: for a driver that cannot be read or shows no face, and for options that do not fit together;
            nothing is left behind.
        ConsentError: if the avatar's consent has expired or was revoked; the driver is not looked at then.
        ImportError: without the extra `video`.
        OSError: if the disk refuses.
    """
    check_driving(loaded.description, consents=consents)
    if chunk < 1:
        raise ValueError(f"a chunk needs at least 1 frame, but chunk is {chunk}")
    out, driver = Path(out), Path(driver)
    still = out.suffix.lower() in STILLS
    _check(driver, out, layout, at=at, seconds=seconds, fps=fps, unmarked=unmarked_for_research)
    target, rest = target_shape(loaded, retargeting), placement_of(loaded.landmarks)
    if signer is None and not unmarked_for_research:
        signer = tried_signer(None, None)
    kept, missing = decided_sound(driver, out, sound=sound, require_audio=require_audio, seconds=seconds)
    check_length(driver, out, at=at, seconds=seconds)
    with ExitStack() as resources:
        if is_landmark_file(driver):
            driving = read_landmarks(driver, fps=fps, follow=follow, rest=rest)
        else:
            limit = at + _STILL_SECONDS if still else seconds
            pupils = wants_pupils(loaded, gaze)
            driving = resources.enter_context(
                track_driver(driver, pupils=pupils, seconds=limit, follow=follow, rest=rest)
            )
        rate, shown = _ticks(driving, out, seconds)
        first = 0
        if still:
            first = round(at * rate)
            if first >= len(shown):
                raise ValueError(f"{driver} lasts {len(shown) / float(rate):.2f} s: there is no frame at {at:g} s")
            shown = shown[: first + 1]

        def poses() -> Iterator[np.ndarray]:  # from the start: the filter needs what came before
            every = driving_poses(driving, shown, fps=rate, smoothing=smoothing, target=target)
            return itertools.islice(every, first, None)

        strange = check_range(poses(), strict=strict)
        size = loaded.networks.image_size
        marking = (
            None if unmarked_for_research else marking_of(loaded.digest, size=size, kind="still" if still else "film")
        )
        makers: dict[str, Callable[[], Frames]] = {
            "driver": lambda: resources.enter_context(closing(driver_crops(driving, shown[first:], size=size))),
            "landmarks": lambda: draw_stream(poses(), networks=loaded.networks, chunk=chunk),
            "avatar": lambda: render_stream(
                loaded.networks, loaded.avatar, poses(), chunk=chunk, mark=marking and marking.mark
            ),
        }
        frames = side_by_side([makers[panel]() for panel in layout])
        record = record_of_driving(loaded, driver, layout=layout, marking=marking)
        with tqdm(frames, total=len(shown) - first, unit="frame", disable=None if progress else True) as counted:
            write_frames(
                out, iter(counted), fps=rate, provenance=record, audio_from=driving.video if kept else None,
                signer=signer, unmarked_for_research=unmarked_for_research,
            )  # fmt: skip
        return Animation(
            path=out,
            frames=len(shown) - first,
            fps=rate,
            without_face=int((driving.segment[shown[first:]] < 0).sum()),
            segments=int(driving.segment.max()) + 1,
            damaged_frames=driving.damaged_frames,
            sound=kept,
            missing_sound=missing,
            out_of_range=strange,
        )


def _check(
    driver: Path,
    out: Path,
    layout: tuple[Panel, ...],
    *,
    at: float,
    seconds: float | None,
    fps: float | None,
    unmarked: bool,
) -> None:
    """Refuse before the driver is decoded what would be refused after it."""
    parse_layout(",".join(layout))
    points = is_landmark_file(driver)
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{out} must end in {', '.join(SUFFIXES)}")
    check_place(out)
    check_target(out, SUFFIXES, unmarked=unmarked)
    if out.exists() and driver.exists() and out.samefile(driver):
        raise ValueError(f"{out} is the driver itself, which would be overwritten")
    if points and "driver" in layout:
        raise ValueError("a file of landmarks has no pictures: leave the driver out of the layout")
    if fps is not None and not points:
        raise ValueError("fps is for a file of landmarks: a video has its own")
    if not 0 <= at < math.inf or (seconds is not None and not 0 < seconds < math.inf):
        raise ValueError(f"at must be at least 0 s and seconds above 0, both finite, but are {at} and {seconds}")
    if at and out.suffix.lower() not in STILLS:
        raise ValueError(f"at chooses the moment of a still, but {out} is a film")


def _ticks(driving: Driving, out: Path, seconds: float | None) -> tuple[Fraction, Int[np.ndarray, " F"]]:
    """The output's frame rate, and the decoded frame of each of its frames."""
    rate = driving.fps
    if out.suffix.lower() == ".gif" and rate > GIF_FPS:
        rate = rate / math.ceil(rate / GIF_FPS)
    shown = frames_on_screen(driving.times, rate)
    if seconds is not None:
        shown = shown[: max(1, math.ceil(seconds * rate))]
    if out.suffix.lower() == ".gif" and len(shown) > GIF_FRAMES:
        raise ValueError(f"{len(shown)} frames are too many for a GIF: write MP4, or fewer with seconds")
    return rate, shown


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    chosen = options_parser().parse_args(arguments)
    try:
        with interrupting():
            print(_run(chosen))
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"th_jax.rendering.animate: {error or 'there is not enough memory'}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print(f"th_jax.rendering.animate: out of memory: lower --chunk, which is {chosen.chunk}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


def _run(chosen: argparse.Namespace) -> str:
    number = camera_number(chosen.driver)
    from_file = is_landmark_file(chosen.driver)
    cutoff = chosen.smoothing if chosen.smoothing is not None else 0.0 if from_file else OneEuro().min_cutoff
    smoothing = OneEuro(cutoff, chosen.smoothing_beta) if cutoff else None
    if smoothing is not None:
        LandmarkFilter(smoothing)  # refuses settings that are none
    layout = parse_layout(chosen.layout or ("avatar" if number is None else "driver,avatar"))
    gaze = {"auto": None, "on": True, "off": False}[chosen.gaze]
    if number is None and chosen.out is None:
        raise ValueError("--out is missing: where should the film go?")
    if number is not None and chosen.strict:
        raise ValueError("a camera's frames are not known beforehand: leave --strict away")
    if number is not None and chosen.out is not None:
        raise ValueError("a camera is shown in a window and not recorded: leave --out away")
    if number is not None and (reason := missing_window()) is not None:
        raise ValueError(f"a camera needs a preview window, but {reason}: record a video and give it as the driver")
    signer = None
    if number is None and not chosen.unmarked_output_for_research:
        signer = tried_signer(chosen.signing_key, chosen.signing_certificate)
    elif chosen.signing_key is not None or chosen.signing_certificate is not None:
        option = "--signing_certificate" if chosen.signing_key is None else "--signing_key"
        raise ValueError(f"nothing is signed of a camera's pictures or of unmarked output: leave {option} away")
    loaded = load_avatar(chosen.avatar, meta=chosen.meta)
    if number is not None:
        check_driving(loaded.description, consents=chosen.consents)
        target, pupils = target_shape(loaded, chosen.retargeting), wants_pupils(loaded, gaze)
        shown = drive_with_camera(
            loaded, number, layout=layout, smoothing=smoothing, target=target, pupils=pupils, follow=chosen.follow
        )
        return f"camera {number}: {shown} frames shown"
    out = unmarked_path(chosen.out) if chosen.unmarked_output_for_research else chosen.out
    if chosen.unmarked_output_for_research:
        note_unmarked(unmarked_log(chosen.avatar), out, avatar=loaded.digest)
    done = animate(
        loaded, chosen.driver, out, layout=layout, smoothing=smoothing, retargeting=chosen.retargeting,
        follow=chosen.follow, strict=chosen.strict, gaze=gaze, fps=chosen.fps, seconds=chosen.seconds, at=chosen.at,
        sound=not chosen.mute, require_audio=chosen.require_audio, chunk=chosen.chunk, consents=chosen.consents,
        signer=signer, progress=True, unmarked_for_research=chosen.unmarked_output_for_research,
    )  # fmt: skip
    return _summary(done)


def _summary(done: Animation) -> str:
    missing = f": the driver's {done.missing_sound}" if done.missing_sound else ""
    frames = (
        f"{done.frames} frames at {float(done.fps):g} frames/s, {'with' if done.sound else 'without'} sound{missing}"
    )
    notes = [f"{done.without_face} without a face repeat the last pose"] if done.without_face else []
    notes += [f"{done.segments} segments, each with its own squares"] if done.segments > 1 else []
    notes += [str(done.out_of_range)] if done.out_of_range.frames else []
    notes += [f"{done.damaged_frames} damaged frames of the driver left out"] if done.damaged_frames else []
    return "; ".join([f"{done.path}: {frames}", *notes])


if __name__ == "__main__":
    sys.exit(main())
