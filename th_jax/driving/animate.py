"""Animates an avatar with a driving video or a landmark file, and keeps the driver's sound.

The driver is streamed twice: first for landmarks, and then for frames, only if the layout shows them. Memory does not
grow with the driver's length.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from th_jax.avatars.file import LoadedAvatar
from th_jax.consent import check_driving
from th_jax.driving.driver import (
    GIF_FPS,
    GIF_FRAMES,
    STILLS,
    SUFFIXES,
    Driving,
    check_length,
    decided_sound,
    is_landmark_file,
    read_landmarks,
    track_driver,
)
from th_jax.driving.motion import is_motion_file, motion_driving, read_motion
from th_jax.driving.output import record_of_driving, write_frames
from th_jax.driving.panels import Panel, driver_crops, parse_layout, side_by_side
from th_jax.driving.paste_back import check_same_person, mark_places, own_descriptors, pasted_frames
from th_jax.driving.placement import Follow, OutOfRange, check_range
from th_jax.driving.poses import driver_sample, driving_poses, target_of, wants_pupils
from th_jax.driving.rates import frames_on_screen
from th_jax.driving.same_person import Choice, Retargeting, compare_faces, known_choice
from th_jax.faces import placement_of
from th_jax.landmarks.methods import Method
from th_jax.landmarks.model3d import fit_clip
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS
from th_jax.landmarks.smooth import OneEuro
from th_jax.landmarks.transfer import UNCHANGED, Gains
from th_jax.provenance import Signer
from th_jax.provenance.signing_options import tried_signer
from th_jax.provenance.watermark.layout import Kind
from th_jax.provenance.watermark.messages import Marking, marking_of
from th_jax.provenance.write import check_target
from th_jax.render import CHUNK, compile_render, draw_stream, render_stream

_STILL_SECONDS = 1.0
"""Seconds of the driver tracked beyond the moment of a still."""

Frames = Iterator[UInt8[np.ndarray, "H W 3"]]


class Animation(NamedTuple):
    """The result of `animate`."""

    path: Path
    frames: int
    fps: Fraction
    without_face: int
    """Number of frames that repeat the last pose because no face was detected in the driver."""
    segments: int
    """Number of segments of the driver, each with its own squares."""
    damaged_frames: int
    """Number of driver frames that could not be decoded."""
    sound: bool
    """Whether the output has sound that is not entirely silent."""
    out_of_range: OutOfRange
    """Number of frames whose landmarks lie outside the range of the training data."""
    retargeting: Choice
    """Method of retargeting, and why it was chosen."""
    rivals: int = 0
    """Number of searched frames in which another face was as prominent as the tracked one."""
    missing_sound: str | None = None
    """Reason why requested sound is missing, such as "is silent throughout"."""


def animate(
    loaded: LoadedAvatar,
    driver: str | Path,
    out: str | Path,
    *,
    layout: tuple[Panel, ...] = ("avatar",),
    smoothing: OneEuro | None = None,
    retargeting: Retargeting = "auto",
    gains: Gains = UNCHANGED,
    neutral: float | None = None,
    follow: Follow = "face",
    face: int | None = None,
    strict: bool = False,
    gaze: bool | None = None,
    fps: float | None = None,
    seconds: float | None = None,
    at: float = 0.0,
    paste_back: str | Path | None = None,
    sound: bool = True,
    require_audio: bool = False,
    chunk: int = CHUNK,
    consents: Path | None = None,
    signer: Signer | None = None,
    unmarked_for_research: bool = False,
    progress: bool = False,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> Animation:
    """Write a video, GIF or still of the avatar with the driver's motion, with its provenance.

    The suffix of `out` selects the format.

    Args:
        loaded: avatar to animate.
        driver: local video, npz file of landmarks (`read_landmarks`), or motion file (`th_jax.driving.motion`).
        out: output file, ending in .mp4, .gif, .png or .jpg; written atomically.
        layout: panels from left to right.
        smoothing: settings of the landmark filter; no smoothing by default.
        retargeting: method that transfers the driver's motion to the face of the avatar's shots (`th_jax.landmarks.methods`);
            "auto" chooses "model" for the face of another person and "none" otherwise (`th_jax.driving.same_person`).
        gains: factors of the motion by region, for the method "model".
        neutral: time in seconds at which the driver's expression is neutral, for the method "model".
        follow: "face" for squares that follow the driver's face, "segment" for one fixed square per segment.
        face: number of the person in a video of several people (`track_driver`).
        strict: if True, frames outside the range of the training data are an error, raised before anything is
            generated.
        gaze: whether to detect the driver's pupils; by default if the avatar's shots have pupils.
        fps: frame rate of a landmark file, in frames per second.
        seconds: duration of the driver to use, from its start; all of it by default.
        at: time of a still within the driver, in seconds.
        paste_back: the avatar's own images (photo, folder of photos or video): the generated face is put back into the whole
            frames of the driver, which must show the avatar's person (`th_jax.driving.paste_back`).
        sound: whether a video keeps the driver's sound, if it is audible.
        require_audio: if True, a driver whose sound cannot be kept is an error, raised before any work.
        chunk: number of frames generated together.
        consents: consent record or folder of records in which to look up whether the avatar's consent was revoked
            (`check_driving`).
        signer: signer of the manifest; chosen by `load_signer` by default.
        unmarked_for_research: if True, write neither watermark nor manifest; the file name must say so
            (`th_jax.provenance.unmarked_path`).
        progress: whether to show a progress bar on a terminal.
        on_frame: callback that receives the number of frames done, first 0, and their total; an error that it raises ends
            the work without a file.

    Returns:
        The output path, frame counts and rate, and what was found in the driver.

    Raises:
        ValueError, MediaError: if the driver cannot be read or shows no face, if a face would be pasted into a video of
            another person, or if options are incompatible; no partial file is left behind.
        ConsentError: if the avatar's consent has expired or was revoked; the driver is not opened in that case.
        ImportError: if the extra `video` is not installed.
        OSError: if a file cannot be read or written.
    """
    check_driving(loaded.description, consents=consents)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 frame, got {chunk}")
    out, driver = Path(out), Path(driver)
    choice = known_choice(loaded, driver, retargeting, gains=gains, neutral=neutral)
    if neutral is not None and (choice is None or choice.method != "model" or not 0 <= neutral < math.inf):
        raise ValueError('neutral is a time in seconds, at least 0, for the retargeting "model"')
    still = out.suffix.lower() in STILLS
    _check(driver, out, layout, at=at, seconds=seconds, fps=fps, face=face, unmarked=unmarked_for_research)
    if paste_back is not None:
        _check_paste(driver, choice, layout, unmarked=unmarked_for_research)
        own = own_descriptors(loaded, Path(paste_back))
    target = None if choice is None else target_of(loaded, choice.method, gains=gains)
    rest = placement_of(loaded.landmarks)
    motion = None
    if choice is not None and is_motion_file(driver):
        motion = _motion_driving(loaded, driver, choice.method, fps=fps)
    if signer is None and not unmarked_for_research:
        signer = tried_signer(None, None)
    kept, missing = decided_sound(driver, out, sound=sound, require_audio=require_audio, seconds=seconds)
    check_length(driver, out, at=at, seconds=seconds)
    size = loaded.networks.image_size

    def mark_of(side: int) -> Marking | None:
        kind: Kind = "still" if still else "video"
        return None if unmarked_for_research else marking_of(loaded.digest, size=side, kind=kind)

    marking = mark_of(size) if paste_back is None else None  # a pasted face is marked in the whole frame
    in_generator = None if marking is None else marking.mark
    with ExitStack() as resources:
        ready: Future[Any] | None = None
        if motion is not None:
            driving = motion
        elif is_landmark_file(driver):
            driving = read_landmarks(driver, fps=fps, follow=follow, rest=rest)
        else:
            limit = at + _STILL_SECONDS if still else seconds
            pupils = wants_pupils(loaded, gaze)
            # What is needed later is compiled while another process tracks the driver.
            compiler = resources.enter_context(ThreadPoolExecutor(1, thread_name_prefix="compiler"))
            if choice is None and loaded.landmarks is not None:
                compiler.submit(fit_clip, loaded.landmarks)
            if "avatar" in layout:
                points = PUPIL_POINTS if pupils else IBUG_POINTS
                ready = compiler.submit(
                    compile_render, loaded.networks, loaded.avatar, points, chunk=chunk, mark=in_generator
                )
            driving = resources.enter_context(
                track_driver(driver, pupils=pupils, seconds=limit, follow=follow, rest=rest, face=face)
            )
        if paste_back is not None:
            check_same_person(loaded, own, driving)
        if choice is None:
            assert loaded.landmarks is not None
            choice = compare_faces(loaded.landmarks, driver_sample(driving))
            target = target_of(loaded, choice.method)
        rate, shown = _ticks(driving, out, seconds)
        first = 0
        if still:
            first = round(at * rate)
            if first >= len(shown):
                raise ValueError(f"{driver} lasts {len(shown) / float(rate):.2f} s: there is no frame at {at:g} s")
            shown = shown[: first + 1]

        def poses() -> Iterator[np.ndarray]:  # from the start: the filter needs the earlier frames
            every = driving_poses(driving, shown, fps=rate, smoothing=smoothing, target=target, neutral=neutral)
            return itertools.islice(every, first, None)

        strange = check_range(poses(), strict=strict)
        places = None if paste_back is None else mark_places(driving)
        if places is not None:
            marking = mark_of(places.side)
        if ready is not None:
            ready.result()
        makers: dict[str, Callable[[], Frames]] = {
            "driver": lambda: resources.enter_context(closing(driver_crops(driving, shown[first:], size=size))),
            "landmarks": lambda: draw_stream(poses(), networks=loaded.networks, chunk=chunk),
            "avatar": lambda: render_stream(
                loaded.networks,
                loaded.avatar,
                poses(),
                chunk=chunk,
                mark=in_generator,
            ),
        }
        frames = side_by_side([makers[panel]() for panel in layout])
        if places is not None and marking is not None:
            frames = pasted_frames(driving, shown[first:], frames, poses(), places=places, mark=marking.mark)
        record = record_of_driving(
            loaded, driver, layout=layout, marking=marking, retargeting=choice, pasted=places is not None
        )
        with tqdm(frames, total=len(shown) - first, unit="frame", disable=None if progress else True) as counted:
            write_frames(
                out, _reported(counted, len(shown) - first, on_frame), fps=rate, provenance=record, signer=signer,
                audio_from=driving.video if kept else None, unmarked_for_research=unmarked_for_research,
            )  # fmt: skip
        return Animation(
            path=out,
            frames=len(shown) - first,
            fps=rate,
            without_face=int((driving.segment[shown[first:]] < 0).sum()),
            segments=int(driving.segment.max()) + 1,
            damaged_frames=driving.damaged_frames,
            sound=kept,
            retargeting=choice,
            missing_sound=missing,
            rivals=driving.rivals,
            out_of_range=strange,
        )


GAZE: dict[str, bool | None] = {"auto": None, "on": True, "off": False}
"""Names of the values of the argument `gaze`."""


def smoothing_of(driver: str | Path, cutoff: float | None, *, beta: float = OneEuro().beta) -> OneEuro | None:
    """Return the filter of a cutoff in Hz, 0 for none; by default none for drivers without images."""
    if cutoff is None:
        cutoff = 0.0 if is_landmark_file(driver) else OneEuro().min_cutoff
    return OneEuro(cutoff, beta) if cutoff else None


def _reported(frames: Iterable[Any], total: int, on_frame: Callable[[int, int], None]) -> Iterator[Any]:
    """Yield the frames, and report before each one, and at the end, how many are done."""
    done = 0
    for frame in frames:
        on_frame(done, total)
        yield frame
        done += 1
    on_frame(done, total)


def _check(
    driver: Path,
    out: Path,
    layout: tuple[Panel, ...],
    *,
    at: float,
    seconds: float | None,
    fps: float | None,
    face: int | None,
    unmarked: bool,
) -> None:
    """Check the options before decoding, to raise errors that would otherwise come after it."""
    parse_layout(",".join(layout))
    points = is_landmark_file(driver)
    check_target(out, SUFFIXES, unmarked=unmarked)
    if out.exists() and driver.exists() and out.samefile(driver):
        raise ValueError(f"{out} is the driver itself and would be overwritten: choose another output")
    if points and "driver" in layout:
        raise ValueError("a landmark file has no images: remove the driver from the layout")
    if fps is not None and not points:
        raise ValueError("fps is only for landmark files: a video has its own frame rate")
    if face is not None and points:
        raise ValueError("a landmark file is of one face: omit face")
    if not 0 <= at < math.inf or (seconds is not None and not 0 < seconds < math.inf):
        raise ValueError(f"at must be at least 0 s and seconds above 0, both finite, got {at} and {seconds}")
    if at and out.suffix.lower() not in STILLS:
        raise ValueError(f"at selects the time of a still image, but {out} is a video")


def _check_paste(driver: Path, choice: Choice | None, layout: tuple[Panel, ...], *, unmarked: bool) -> None:
    """Check the options of pasting before decoding.

    Raises:
        ValueError: naming the option that does not fit.
    """
    if is_landmark_file(driver):
        raise ValueError(f"{driver} has no frames into which a face could be pasted: give a video")
    if choice is not None and choice.method != "none":
        raise ValueError("a pasted face must stay where the driver's is: omit retargeting, gains and neutral")
    if layout != ("avatar",):
        raise ValueError("a pasted face fills the driver's frames: omit the layout")
    if unmarked:
        raise ValueError("frames with a pasted face are always marked: omit the output without marks")


def _motion_driving(loaded: LoadedAvatar, driver: Path, retargeting: Method, *, fps: float | None) -> Driving:
    """Read a motion file as landmarks of the avatar's own face.

    Raises:
        ValueError: if the file is invalid, the avatar has no landmarks, or options are for landmarks of another face.
    """
    if retargeting != "none" or fps is not None:
        raise ValueError("a motion file moves the avatar's own face at its own times: leave retargeting and fps out")
    if loaded.landmarks is None:
        raise ValueError("this avatar was saved without the landmarks of its shots, which a motion file needs")
    return motion_driving(read_motion(driver), loaded.landmarks)


def _ticks(driving: Driving, out: Path, seconds: float | None) -> tuple[Fraction, Int[np.ndarray, " F"]]:
    """Compute the output's frame rate and, for each output frame, the index of the decoded frame."""
    rate = driving.fps
    if out.suffix.lower() == ".gif" and rate > GIF_FPS:
        rate = rate / math.ceil(rate / GIF_FPS)
    shown = frames_on_screen(driving.times, rate)
    if seconds is not None:
        shown = shown[: max(1, math.ceil(seconds * rate))]
    if out.suffix.lower() == ".gif" and len(shown) > GIF_FRAMES:
        raise ValueError(f"{len(shown)} frames are too many for a GIF: write MP4, or limit the length with seconds")
    return rate, shown
