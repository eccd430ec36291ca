"""Measures the gaze that generated frames show beside the known one, with and without drawn pupils.

Pupils are found in the frames by their gradients (`th_jax.faces.pupils`), inside the known outlines of the eyes, and read as
directions on the known eyeballs. The same is done with the renderer's own frames, whose error is that of the method.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation.bootstrap import bootstrap_mean
from th_jax.evaluation.retargeting import angle_between, gaze_directions
from th_jax.faces.pupils import eye_opening, find_pupils
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS
from th_jax.landmarks.truth import GazeTruth
from th_jax.models.networks import Networks
from th_jax.render import FEW, render
from th_jax.training.finetune import feed_forward
from th_jax.training.finetune_people import finetune_many, fit_shots
from th_jax.types import Avatar, Shots
from th_jax.weights import MetaModel


class ShownGaze(NamedTuple):
    """What frames of P people with F frames each show; NaN where no pupil was found."""

    error: Float[np.ndarray, "P F"]
    """Angle in degrees between the shown and the known gaze, the mean of the eyes in which a pupil was found."""
    difference: Float[np.ndarray, "P F 2"]
    """Shown minus known yaw and pitch, in degrees."""
    known: Float[np.ndarray, "P F 2"]
    """Known yaw and pitch, in degrees, as the camera sees them."""
    opening: Float[np.ndarray, "P F"]
    """Distance of the lids as a share of the eye's width."""


def shown_gaze(frames: UInt8[np.ndarray, "P F S S 3"], truth: GazeTruth) -> ShownGaze:
    """Find the pupils in frames made from `truth.driving`, or in `truth.frames`, and compare their gaze with the known one."""
    size = frames.shape[2]
    people, count = frames.shape[:2]
    found = np.array(truth.driving, np.float64)
    for person in range(people):
        for number in range(count):
            outline = truth.driving[person, number, :IBUG_POINTS] * size
            found[person, number, IBUG_POINTS:] = find_pupils(frames[person, number], outline) / size
    shown, known = gaze_directions(found, truth.driving, eyes=truth.eyes, radius=truth.radius)
    angle = angle_between(shown, known)
    turns = np.stack([_turns(shown), _turns(known)])
    with np.errstate(invalid="ignore"):
        seen = np.isfinite(angle)
        weight = seen / np.maximum(seen.sum(-1, keepdims=True), 1)
        mean = np.where(seen.any(-1), (np.nan_to_num(angle) * weight).sum(-1), np.nan)
        apart = (np.nan_to_num(turns[0] - turns[1]) * weight[..., None]).sum(-2)
    apart[~seen.any(-1)] = np.nan
    return ShownGaze(mean, apart, turns[1].mean(-2), eye_opening(truth.driving[..., :IBUG_POINTS, :]).mean(-1))


def _turns(direction: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
    x, y, z = np.moveaxis(direction, -1, 0)
    return np.degrees(np.stack([np.arctan2(x, z), -np.arcsin(np.clip(y, -1, 1))], axis=-1))


def follows(shown: ShownGaze, *, axis: int) -> float:
    """Compute how much the shown gaze changes with the known one: the slope within people, 1 for frames that follow exactly.

    Args:
        shown: measured gaze.
        axis: 0 for yaw, 1 for pitch.
    """
    known, found = _within(shown, shown.known[..., axis]), _within(shown, (shown.known + shown.difference)[..., axis])
    return float((known * found).sum() / max(float((known**2).sum()), 1e-12))


def lid_correlation(shown: ShownGaze, *, axis: int) -> float:
    """Compute the correlation of the error of the shown gaze with the opening of the lids, within people.

    It is 0 if lids and gaze are independent controls: how far the lids are open does not change where the eyes look.
    """
    lids, error = _within(shown, shown.opening), _within(shown, shown.difference[..., axis])
    return float((lids * error).sum() / max(float(np.sqrt((lids**2).sum() * (error**2).sum())), 1e-12))


def _within(shown: ShownGaze, values: Float[np.ndarray, "P F"]) -> Float[np.ndarray, "P F"]:
    """Subtract each person's mean over the frames with a pupil; the others become 0."""
    seen = np.isfinite(shown.error)
    mean = np.where(seen, values, 0).sum(1, keepdims=True) / np.maximum(seen.sum(1, keepdims=True), 1)
    return np.where(seen, values - mean, 0.0)


def tuned_avatars(meta: MetaModel, truth: GazeTruth, **settings: object) -> list[Avatar]:
    """Fine-tune an avatar of each person.

    Args:
        meta: meta weights.
        truth: people whose shots are used.
        settings: arguments of `finetune_many`.
    """
    people = ((str(number), shots) for number, shots in enumerate(_fitted(meta.networks, truth)))
    made = finetune_many(meta.networks, meta.weights, meta.perceptual, people, key=jax.random.key(0), **settings)  # type: ignore[arg-type]
    avatars = {done.name: done.avatar for done in made}
    return [avatars[str(number)] for number in range(len(truth.shots))]


def feed_forward_avatars(meta: MetaModel, truth: GazeTruth) -> list[Avatar]:
    """Build the feed-forward avatar of each person."""
    compiled = jax.jit(feed_forward, static_argnums=0)
    return [compiled(meta.networks, meta.weights, shots) for shots in _fitted(meta.networks, truth)]


def _fitted(networks: Networks, truth: GazeTruth) -> Iterator[Shots]:
    mask = np.ones(truth.shots.shape[1], np.float32)
    for frames, points in zip(truth.shot_frames, truth.shots, strict=True):
        yield fit_shots(networks, Shots(frames, points.astype(np.float32), mask))


def measure_generated(
    networks: Networks, avatars: Mapping[str, list[Avatar]], truth: GazeTruth
) -> dict[str, ShownGaze]:
    """Measure the renderer's frames, and the avatars' with and without drawn pupils; nothing is written.

    Args:
        networks: networks of the avatars.
        avatars: the avatars of each kind, in the order of the people.
        truth: the people, and the landmarks that drive their avatars.
    """
    measured = {"rendered": shown_gaze(truth.frames, truth)}
    for kind, people in avatars.items():
        for name, points in (("with pupils", PUPIL_POINTS), ("without pupils", IBUG_POINTS)):
            driving = truth.driving[:, :, :points].astype(np.float32)
            made = [render(networks, avatar, one, chunk=FEW) for avatar, one in zip(people, driving, strict=True)]
            measured[f"{kind}, {name}"] = shown_gaze(np.stack(made), truth)
    return measured


def gaze_report(measured: dict[str, ShownGaze], *, size: int, radius: float, seed: int = 0) -> str:
    """Format the results as a Markdown table.

    Args:
        measured: result of `measure_generated`.
        size: side of the frames in pixels.
        radius: mean radius of an eyeball in the image, as a share of its side.
        seed: random seed of the intervals.
    """
    heads = ["error, °", "pupils found, %", "follows yaw", "follows pitch", "lids and yaw", "lids and pitch"]
    lines = [f"| gaze in frames of {size} px | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, shown in measured.items():
        error = bootstrap_mean(shown.error, seed=seed)
        numbers = [measure(shown, axis=axis) for measure in (follows, lid_correlation) for axis in (0, 1)]
        cells = [
            f"{error.value:.1f} ({error.low:.1f}-{error.high:.1f})",
            f"{100 * np.isfinite(shown.error).mean():.0f}",
        ]
        lines.append(f"| {name} | {' | '.join([*cells, *(f'{number:.2f}' for number in numbers)])} |")
    pixel = np.degrees(np.arcsin(min(1 / (radius * size), 1)))
    return "\n".join(lines) + f"\n\nA pixel is {pixel:.0f}° of gaze at {size} px.\n"
