"""Drives avatars as jobs: settings with their equivalent command line, bundled drivers, stills of edits, and provenance."""

import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from th_jax.avatars.examples import DRIVER, FPS, write_driver
from th_jax.avatars.file import LoadedAvatar
from th_jax.data.shots import load_shots
from th_jax.driving.animate import GAZE, Animation, animate, smoothing_of
from th_jax.driving.driver import LANDMARK_SUFFIXES, STILLS, SUFFIXES
from th_jax.driving.edit import edit_driver, parse_edit
from th_jax.driving.motion import POSE, Motion, write_motion
from th_jax.driving.panels import parse_layout
from th_jax.driving.same_person import RETARGETING
from th_jax.landmarks.arkit import NAMES
from th_jax.landmarks.transfer import UNCHANGED, Gains, check_gains
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaError
from th_jax.media.isolation import run_limited
from th_jax.provenance import read_sidecar
from th_jax.storage.files import whole_file
from th_jax.storage.strict_json import from_json, parse_json
from th_jax.studio.jobs import Job

DRIVER_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, *LANDMARK_SUFFIXES)

OTHER_DRIVER = 5
"""Index of the second bundled driver among the held-out people."""


class DriveSettings(NamedTuple):
    """Options of a drive, with the command line's defaults."""

    layout: str = "avatar"
    retargeting: str = "auto"
    gains: Gains = UNCHANGED
    smoothing: float | None = None
    """Cutoff in Hz, 0 for none; None is the command line's default."""
    fps: float | None = None
    """Frame rate of a file of landmarks."""
    seconds: float | None = None
    """Only this much of the driver."""
    at: float = 0.0
    """Time of a still, in seconds."""
    gaze: str = "auto"
    sound: bool = True
    suffix: str = ".mp4"

    def checked(self) -> "DriveSettings":
        """Return the settings themselves.

        Raises:
            ValueError: if one is out of range; the message names it.
        """
        parse_layout(self.layout)
        check_gains(self.gains)
        if self.retargeting not in RETARGETING:
            raise ValueError(f"retargeting must be one of {', '.join(RETARGETING)}, got {self.retargeting!r}")
        if self.gaze not in tuple(GAZE):
            raise ValueError(f"gaze must be auto, on or off, got {self.gaze!r}")
        if self.suffix not in SUFFIXES:
            raise ValueError(f"the format must be one of {', '.join(SUFFIXES)}, got {self.suffix!r}")
        return self

    def to_json(self) -> str:
        """Return the settings as JSON, to be saved."""
        return json.dumps(self._asdict() | {"gains": self.gains._asdict()}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "DriveSettings":
        """Read saved settings.

        Raises:
            ValueError: if they are not settings of a drive.
        """
        where = "these are not settings of a drive: it"
        read = parse_json(text, name=where)
        gains = read.pop("gains", {}) if isinstance(read, dict) else {}
        settings = from_json(cls, read, where=where)._replace(gains=from_json(Gains, gains, where=where))
        try:
            return settings.checked()
        except ValueError as error:
            raise ValueError(f"these are not settings of a drive: {error}") from error


def _gains_text(gains: Gains) -> str:
    return ",".join(f"{name}={_number(value)}" for name, value in gains._asdict().items())


def _number(value: float) -> str:
    """Write a number with all its digits, so that the command line has the same one."""
    return repr(float(value)).removesuffix(".0")


def animate_arguments(settings: DriveSettings, driver: Path) -> dict[str, Any]:
    """Convert settings to arguments of `th_jax.animate`."""
    return {
        "layout": parse_layout(settings.layout),
        "retargeting": settings.retargeting,
        "gains": settings.gains,
        "smoothing": smoothing_of(driver, settings.smoothing),
        "fps": settings.fps,
        "seconds": settings.seconds,
        "at": settings.at if settings.suffix in STILLS else 0.0,
        "gaze": GAZE[settings.gaze],
        "sound": settings.sound,
    }


def animate_command(avatar: Path, driver: Path, out: Path, settings: DriveSettings, *, consents: Path) -> str:
    """Return the command line that makes the same file."""
    usual = DriveSettings()
    words = ["th-jax", "animate", "--avatar", str(avatar), "--driver", str(driver), "--out", str(out)]
    words += ["--consents", str(consents)]
    for name in ("layout", "retargeting", "smoothing", "fps", "seconds", "gaze"):
        value = getattr(settings, name)
        if value != getattr(usual, name):
            words += [f"--{name}", _number(value) if isinstance(value, float) else str(value)]
    if settings.suffix in STILLS and settings.at:
        words += ["--at", _number(settings.at)]
    if settings.gains != UNCHANGED:
        words += ["--gains", _gains_text(settings.gains)]
    return shlex.join(words if settings.sound else [*words, "--mute"])


def drive(
    job: Job, loaded: LoadedAvatar, driver: Path, out: Path, settings: DriveSettings, *, consents: Path
) -> tuple[Path, str]:
    """Drive an avatar within a job; returns the file and a sentence about it.

    Raises:
        Cancelled: if the job was canceled; no file is left behind.
        ValueError, MediaError, OSError: as `th_jax.animate`.
    """
    job.stage("reading the driver and tracking its face")

    def on_frame(done: int, total: int) -> None:
        if done == 0:
            job.stage("rendering")
        job.advance(done, total)

    done = animate(
        loaded, driver, out, consents=consents, on_frame=on_frame, **animate_arguments(settings, driver)
    )  # fmt: skip
    return done.path, summary(done)


def summary(done: Animation) -> str:
    """Describe a finished drive in one line."""
    sound = "with sound" if done.sound else "without sound"
    notes = [f"{done.without_face} frames without a face repeat the last pose"] if done.without_face else []
    notes += [str(done.out_of_range)] if done.out_of_range.frames else []
    notes += [str(done.retargeting)] if done.retargeting.reason else []
    return "; ".join([f"{done.frames} frames at {float(done.fps):g} frames/s, {sound}", *notes])


def still_landmarks(path: str) -> np.ndarray:
    """Return the landmarks of the face in a photo, `[1, 68, 2]`; runs in an isolated process.

    Raises:
        ValueError, MediaError: as `load_shots`.
    """
    return np.asarray(load_shots(path, shots=1).landmarks[:1])


def usable_driver(
    upload: Path, folder: Path, stem: str, *, run: Callable[..., Any] = run_limited
) -> Path:  # fmt: skip
    """Copy an uploaded driver into a folder; a photo becomes a landmark file.

    Raises:
        ValueError: if the file is no driver, or a photo without a face.
        OSError: if it cannot be copied.
    """
    suffix = upload.suffix.lower()
    if suffix not in DRIVER_SUFFIXES:
        raise ValueError(
            f"{upload.name[:100]!a} is no driver: give a video ({', '.join(VIDEO_SUFFIXES)}), a photo, or a file of "
            f"motion or landmarks ({', '.join(LANDMARK_SUFFIXES)})"
        )
    if suffix not in IMAGE_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        return Path(shutil.copyfile(upload, path))
    try:
        points = run(still_landmarks, str(upload))
    except (MediaError, ValueError) as error:
        raise ValueError(str(error).replace(str(upload), "this photo")) from error
    path = folder / f"{stem}.npz"
    with whole_file(path) as target:
        np.savez(target, landmarks=np.asarray(points, np.float32))
    return path


def _motion_example() -> Motion:
    """Look around, nod, smile, speak and blink, for four seconds."""
    times = np.arange(int(4 * FPS)) / float(FPS)
    pose = np.zeros((len(times), len(POSE)))
    pose[:, POSE.index("size")] = 1.0
    pose[:, POSE.index("yaw")] = 18 * np.sin(2 * np.pi * times / 4)
    pose[:, POSE.index("pitch")] = 6 * np.sin(2 * np.pi * times / 2)
    coefficients = np.zeros((len(times), len(NAMES)))
    smile = 0.35 * (1 - np.cos(2 * np.pi * times / 4)) / 2
    for side in ("Left", "Right"):
        coefficients[:, NAMES.index(f"mouthSmile{side}")] = smile
        coefficients[:, NAMES.index(f"eyeBlink{side}")] = np.exp(-(((times - 1.0) / 0.08) ** 2))
    coefficients[:, NAMES.index("jawOpen")] = 0.25 * (1 - np.cos(2 * np.pi * times / 0.5)) / 2
    return Motion(times, pose, coefficients)


DRIVERS: Mapping[str, str] = {
    "a rendered person speaks": "speech.mp4",
    "another rendered person": "other.mp4",
    "motion file: look, nod, smile": "motion.csv",
}
"""Bundled drivers and their files."""


def example_driver(name: str, folder: Path) -> Path:
    """Return the path of a bundled driver, which is written on first use.

    Raises:
        ValueError: if the name is unknown.
        OSError: if it cannot be written.
    """
    if name not in DRIVERS:
        raise ValueError(f"the bundled drivers are {', '.join(DRIVERS)}, got {name!r}")
    path = folder / DRIVERS[name]
    if not path.exists():
        if path.suffix == ".csv":
            write_motion(path, _motion_example())
        else:
            write_driver(path, person=DRIVER if path.stem == "speech" else OTHER_DRIVER)
    return path


def edit_text(values: Mapping[str, float]) -> str:
    """Return the option `--edit` for the sliders that were moved; neutral without any."""
    moved = ",".join(f"{name}={_number(value)}" for name, value in values.items() if value)
    return moved or "yaw=0"


MAX_KEYS, KEY_SECONDS = 50, (0.1, 10.0)
"""Maximum number of positions of a clip, and the range of the time between two of them, in seconds."""


def keyframe_motion(keys: Sequence[Mapping[str, float]], *, seconds: float) -> Motion:
    """Move from one position of the sliders to the next; slower at both, as heads do.

    Args:
        keys: values of the sliders, in order.
        seconds: time from one to the next.

    Raises:
        ValueError: if there are fewer than 2 positions or too many, or the time or a value is out of range.
    """
    if not 2 <= len(keys) <= MAX_KEYS:
        raise ValueError(
            f"a clip has 2 to {MAX_KEYS} positions: move the sliders and add each one; there are {len(keys)}"
        )
    least, most = KEY_SECONDS
    if not least <= seconds <= most:
        raise ValueError(f"the time between two positions must be {least:g} to {most:g} s, got {seconds:g}")
    positions = [parse_edit(edit_text(key)) for key in keys]
    steps = max(1, round(seconds * FPS))
    share = np.arange((len(keys) - 1) * steps + 1) / steps
    before = np.minimum(share.astype(int), len(keys) - 2)
    weight = (1 - np.cos(np.pi * (share - before)))[:, None] / 2

    def between(values: list[np.ndarray]) -> np.ndarray:
        every = np.concatenate(values)
        return np.asarray((1 - weight) * every[before] + weight * every[before + 1])

    times = np.arange(len(share)) / float(FPS)
    return Motion(times, between([one.pose for one in positions]), between([one.coefficients for one in positions]))


def edit(loaded: LoadedAvatar, text: str, out: Path, *, consents: Path) -> Path:
    """Write a still of an avatar with named controls (`th-jax animate --edit`).

    Raises:
        ValueError: if a control is unknown or out of range.
        ConsentError: if the avatar's consent has expired or was revoked.
    """
    with edit_driver(text) as driver:
        return animate(loaded, driver, out, consents=consents).path


def edit_command(avatar: Path, text: str, out: Path, *, consents: Path) -> str:
    """Return the command line that writes the same still."""
    words = ["--avatar", str(avatar), "--edit", text, "--out", str(out), "--consents", str(consents)]
    return shlex.join(["th-jax", "animate", *words])


def provenance_lines(path: Path) -> list[str]:
    """Describe the record beside a result.

    Raises:
        ValueError, OSError: if there is no valid record.
    """
    record, _ = read_sidecar(path)
    consent = f"consent record {record.consent}" if record.consent else "no consent was recorded"
    lines = [f"made by th_jax ({record.kind})", f"avatar {record.avatar}", consent]
    lines += [f"watermark {record.watermark}"] if record.watermark else ["no watermark: no room, or no avatar in it"]
    return [*lines, *([record.notes] if record.notes else [])]
