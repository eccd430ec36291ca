"""Measures retargeting on points with known truth: landmark error, gaze, closures and self-retargeting, by yaw."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from th_jax.evaluation.bootstrap import Estimate, bootstrap_mean
from th_jax.landmarks.arkit import coefficients_of, look_coefficients
from th_jax.landmarks.methods import METHODS, Method, ModelRetargeter, Target, make_retargeter
from th_jax.landmarks.model3d import fit_frames, load_model
from th_jax.landmarks.transfer import fit_face
from th_jax.landmarks.truth import RetargetTruth

_LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
_LIPS = ((61, 67), (62, 66), (63, 65))


def landmark_error(
    points: Float[np.ndarray, "*batch P 2"],
    truth: Float[np.ndarray, "*batch P 2"],
    *,
    unit: Float[np.ndarray, "*batch"],
) -> Float[np.ndarray, "*batch"]:
    """Compute the mean distance of the 68 points from the truth, in units such as the distance between the eyes."""
    return np.linalg.norm(points[..., :68, :] - truth[..., :68, :], axis=-1).mean(-1) / unit


def aligned_error(
    points: Float[np.ndarray, "F P 2"], truth: Float[np.ndarray, "F P 2"], *, unit: Float[np.ndarray, " F"]
) -> Float[np.ndarray, " F"]:
    """Compute `landmark_error` after the best similarity transform of each frame, which leaves errors of shape alone."""
    seen, wanted = (one[:, :68, 0] + 1j * one[:, :68, 1] for one in (points, truth))
    middle = seen.mean(1, keepdims=True), wanted.mean(1, keepdims=True)
    seen, wanted = seen - middle[0], wanted - middle[1]
    scale = (wanted * seen.conj()).sum(1, keepdims=True) / np.maximum((np.abs(seen) ** 2).sum(1, keepdims=True), 1e-12)
    return np.asarray(np.abs(scale * seen - wanted).mean(1) / unit)


def closure(points: Float[np.ndarray, "*batch P 2"], *, of: str) -> Float[np.ndarray, "*batch"]:
    """Compute the mean opening of the lids relative to the eyes' width, or of the lips relative to the mouth's.

    `of` is "lids" or "lips".
    """
    gaps, ends = (_LIDS, ((36, 39), (42, 45))) if of == "lids" else (_LIPS, ((48, 54),))

    def mean(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        first, second = np.array(pairs).T
        return np.asarray(np.linalg.norm(points[..., first, :] - points[..., second, :], axis=-1).mean(-1))

    return mean(gaps) / mean(ends)


def gaze_error(
    points: Float[np.ndarray, "F 70 2"],
    truth: Float[np.ndarray, "F 70 2"],
    *,
    eyes: Float[np.ndarray, "F 2 2"],
    radius: Float[np.ndarray, "F 2"],
) -> Float[np.ndarray, " F"]:
    """Compute the angle in degrees between the directions of gaze that points and truth show, the mean of both eyes.

    The pupil is read relative to the corners of its eye, so that a shift of the whole face is no error of gaze, and
    placed on the true eyeball. `eyes` and `radius` are the true centers and radii of the eyeballs in the image.
    """
    shown, known = gaze_directions(points, truth, eyes=eyes, radius=radius)
    return angle_between(shown, known).mean(-1)


def angle_between(
    first: Float[np.ndarray, "*batch 3"], second: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch"]:
    """Compute the angle between unit vectors in degrees."""
    return np.asarray(np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1))))


def gaze_directions(
    points: Float[np.ndarray, "*batch 70 2"],
    truth: Float[np.ndarray, "*batch 70 2"],
    *,
    eyes: Float[np.ndarray, "*batch 2 2"],
    radius: Float[np.ndarray, "*batch 2"],
) -> tuple[Float[np.ndarray, "*batch 2 3"], Float[np.ndarray, "*batch 2 3"]]:
    """Compute the directions of gaze of both eyes that points and truth show, as `gaze_error` compares them.

    The axes point to the image's right, down, and to the camera.
    """
    corners = np.array([[36, 39], [42, 45]])
    middles = [one[..., corners, :].mean(-2) for one in (points, truth)]
    true = (truth[..., 68:, :] - eyes) / radius[..., None]
    apart = (points[..., 68:, :] - middles[0]) - (truth[..., 68:, :] - middles[1])
    return _on_ball(true + apart / radius[..., None]), _on_ball(true)


def _on_ball(place: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 3"]:
    length = np.linalg.norm(place, axis=-1, keepdims=True)
    place = place / np.maximum(length, 1.0)
    return np.concatenate([place, np.sqrt(np.maximum(1 - (place**2).sum(-1, keepdims=True), 0.0))], axis=-1)


BINS = ("0-15", "15-30", "30-45")
"""Bins of yaw in degrees, to either side; each has the same number of consecutive driving frames."""

MEASURES = ("landmarks", "shape", "lids", "lips", "gaze")
"""Landmark error, the same after alignment, closure errors of lids and lips, and gaze error in degrees."""

_SHUT_LIPS = 0.03
"""Opening of the driver's lips, relative to the mouth's width, below which they count as closed."""


class Measured(NamedTuple):
    """Values of all methods, by pair and frame; NaN where a frame does not count."""

    values: dict[tuple[Method, str], Float[np.ndarray, "N F"]]
    """By method and measure; a row per pair of two different people."""
    self_error: dict[Method, float]
    """Largest change of a coordinate when a person is retargeted to themselves, in sides of the image."""
    target: Float[np.ndarray, " N"]
    """Number of each row's target."""


def measure_pairs(pairs: RetargetTruth, *, on_target: Callable[[], object] = lambda: None) -> Measured:
    """Retarget each person's driving frames to each other person by each method, and compare with the truth.

    Landmark errors are shares of the median distance between the outer corners of the target's eyes in its shots. Gaze
    counts where the driver's lids are open; closure errors are differences of openings from the truth in frames in
    which the driver's lids or lips are shut. `on_target` is called after each target and method.
    """
    people = len(pairs.shots)
    # Each person is fitted once, not for each pair.
    faces = [[fit_face(one) for one in part] for part in (pairs.shots, pairs.clips)]
    values: dict[tuple[Method, str], list[np.ndarray]] = {(m, name): [] for m in METHODS for name in MEASURES}
    self_error = dict.fromkeys(METHODS, 0.0)
    blinks = pairs.units[:, :, [8, 9]].max(-1)
    for method in METHODS:
        for target in range(people):
            goal = Target(method, pairs.shots[target])
            unit = np.full(
                pairs.driving.shape[1],
                np.median(np.linalg.norm(pairs.shots[target, :, 36] - pairs.shots[target, :, 45], axis=-1)),
            )
            for driver in range(people):
                driving, truth = pairs.driving[driver], pairs.truth[target, driver]
                if driver == target:
                    own = make_retargeter(goal, pairs.shots[target])(driving)
                    self_error[method] = max(self_error[method], float(np.abs(own - driving).max()))
                    continue
                if method == "model":
                    points = ModelRetargeter(faces[1][driver], faces[0][target])(driving)
                else:
                    points = make_retargeter(goal, pairs.clips[driver])(driving)
                found = {
                    "landmarks": landmark_error(points, truth, unit=unit),
                    "shape": aligned_error(points, truth, unit=unit),
                    "gaze": _where(
                        blinks[driver] < 0.5,
                        gaze_error(points, truth, eyes=pairs.eyes[target, driver], radius=pairs.radius[target, driver]),
                    ),
                    "lids": _where(blinks[driver] > 0.95, _closure_error(points, truth, of="lids")),
                    "lips": _where(closure(driving, of="lips") < _SHUT_LIPS, _closure_error(points, truth, of="lips")),
                }
                for name, one in found.items():
                    values[method, name].append(one)
            on_target()
    rows = [target for target in range(people) for driver in range(people) if driver != target]
    return Measured(
        {key: np.stack(found) for key, found in values.items()}, self_error, np.array(rows, np.float64)
    )  # fmt: skip


def _where(counts: Bool[np.ndarray, " F"], values: Float[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
    return np.where(counts, values, np.nan)


def _closure_error(
    points: Float[np.ndarray, "F P 2"], truth: Float[np.ndarray, "F P 2"], *, of: str
) -> Float[np.ndarray, " F"]:
    return np.abs(closure(points, of=of) - closure(truth, of=of))


def in_bin(values: Float[np.ndarray, "N F"], number: int | None) -> Float[np.ndarray, "N K"]:
    """Return the frames of a bin of yaw, or all of them for None."""
    if number is None:
        return values
    width = values.shape[1] // len(BINS)
    return values[:, number * width : (number + 1) * width]


def estimate(measured: Measured, method: Method, measure: str, *, bin: int | None = None, seed: int = 0) -> Estimate:
    """Compute a mean with its interval, for which targets are resampled with all of their drivers."""
    return bootstrap_mean(in_bin(measured.values[method, measure], bin), groups=measured.target, seed=seed)


def ratio(
    measured: Measured, method: Method, other: Method, *, bin: int | None = None, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Compute the ratio of two methods' mean landmark errors, and its 95 % interval over resampled targets."""
    sums = [
        np.bincount(measured.target.astype(int), in_bin(measured.values[one, "landmarks"], bin).sum(1))
        for one in (method, other)
    ]
    drawn = np.random.default_rng(seed).multinomial(len(sums[0]), np.full(len(sums[0]), 1 / len(sums[0])), resamples)
    low, high = np.quantile((drawn @ sums[0]) / (drawn @ sums[1]), [0.025, 0.975])
    return float(sums[0].sum() / sums[1].sum()), float(low), float(high)


def fit_errors(pairs: RetargetTruth) -> dict[str, Estimate]:
    """Measure the fit itself on the drivers: gaze and yaw in degrees, and the round trip of the ARKit coefficients.

    Identity and the neutral face are fitted to each person's clip, and the driving frames to that. Gaze counts in frames with
    open lids.
    """
    gaze, yaw, arkit = [], [], []
    for number, clip in enumerate(pairs.clips):
        face = fit_face(clip)
        frames = fit_frames(pairs.driving[number], face.person)
        true = pairs.angles[number]
        shown = np.stack([_direction(angles) for angles in (np.asarray(frames.gaze), true[:, 3:])])
        angle = angle_between(shown[0], shown[1])
        gaze.append(_where(pairs.units[number][:, [8, 9]].max(-1) < 0.5, angle))
        yaw.append(np.degrees(np.abs(np.asarray(frames.angles)[:, 0] - true[:, 0])))
        expression = frames.expression - face.neutral.expression[None]
        found = np.asarray(coefficients_of(load_model(), expression, frames.gaze))
        wanted = np.clip(
            pairs.units[number] + np.asarray(look_coefficients(jnp.asarray(true[:, 3:], jnp.float32))), 0, 1
        )
        arkit.append(np.abs(found - wanted).mean(-1))
    names = {"gaze of the fit": gaze, "yaw of the fit": yaw, "ARKit coefficients": arkit}
    return {name: bootstrap_mean(np.stack(values).astype(np.float64)) for name, values in names.items()}


def _direction(gaze: Float[np.ndarray, "F 2"]) -> Float[np.ndarray, "F 3"]:
    yaw, pitch = gaze.T
    return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], axis=-1)


def report(measured: Measured, fitted: dict[str, Estimate], *, seed: int = 0) -> str:
    """Format the results as Markdown tables."""
    methods: list[Method] = list(dict.fromkeys(method for method, _ in measured.values))

    def cell(found: Estimate, scale: float = 100.0) -> str:
        return f"{scale * found.value:.2f} ({scale * found.low:.2f}-{scale * found.high:.2f})"

    lines = []
    for name, title in (("landmarks", "landmark error"), ("shape", "after alignment")):
        lines += [f"| {title}, % | {' | '.join(f'{span}°' for span in BINS)} |", "|---" * (len(BINS) + 1) + "|"]
        for method in methods:
            bins = [cell(estimate(measured, method, name, bin=number, seed=seed)) for number in range(len(BINS))]
            lines.append(f"| {method} | {' | '.join(bins)} |")
        lines.append("")
    lines += ["| method | lids, % | lips, % | gaze, ° | self-retargeting |", "|---|---|---|---|---|"]
    for method in methods:
        lids, lips, gaze = (estimate(measured, method, name, seed=seed) for name in ("lids", "lips", "gaze"))
        lines.append(
            f"| {method} | {cell(lids)} | {cell(lips)} | {cell(gaze, 1.0)} | {measured.self_error[method]:.0e} |"
        )
    if {"model", "none", "shape"} <= set(methods):
        last = len(BINS) - 1
        ratios = {
            "model / none": ratio(measured, "model", "none", seed=seed),
            "model / none beyond 30°": ratio(measured, "model", "none", bin=last, seed=seed),
            "model / shape beyond 30°": ratio(measured, "model", "shape", bin=last, seed=seed),
        }
        lines += ["", "| ratio of landmark errors | |", "|---|---|"]
        lines += [f"| {name} | {value:.3f} ({low:.3f}-{high:.3f}) |" for name, (value, low, high) in ratios.items()]
    lines += ["", "| fit of the model | |", "|---|---|"]
    lines += [f"| {name} | {one.value:.3f} ({one.low:.3f}-{one.high:.3f}) |" for name, one in fitted.items()]
    return "\n".join(lines) + "\n"
