"""Measures of one person's frames: against their own held-out frames, or with another person's motion."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation import metrics
from th_jax.evaluation.face_measures import FaceMeasures, measure_faces
from th_jax.evaluation.people import HeldOut
from th_jax.evaluation.protocol.plan import Person
from th_jax.evaluation.protocol.score_store import Table
from th_jax.evaluation.scores import FAILURE_VALUES, RealFaces, heldout_table
from th_jax.landmarks.model3d import fit_frames, fit_identity, known_frames, rotation
from th_jax.perceptual.frozen import PerceptualWeights

LOST = "identity/lost"
"""1 for a frame whose descriptor is closer to the driver's real frames than to the person's."""

CHARGES: Mapping[str, float] = {**FAILURE_VALUES, LOST: 1.0}
"""Value charged for a frame without a face, by measure."""

NAMED_CHARGES: Mapping[str, float] = {"identity/l2": math.sqrt(2.0), "identity/centred_cosine": 0.0}
"""The same for "identity/l2(NETWORK)" and so on, with features of unit length: strangers have random directions."""

HIGHER_IS_BETTER = frozenset({"ssim", "psnr", "ms_ssim", "identity/centred_cosine"})

FLICKER = "flicker"
MAX_PSNR = 10.0 * math.log10(12.0 * 255.0**2)
"""Maximum PSNR in decibels, that of rounding to 8 bits; identical frames would be infinite."""

TITLES = {
    "l1/frame": "L1, frame",
    "l1/box": "L1, face",
    "ssim": "SSIM",
    "vgg16_distance": "VGG16 distance",
    "vgg19_distance": "VGG19 distance",
    "vggface_distance": "VGGFace distance",
    "lpips": "LPIPS",
    "landmark_error": "landmark error",
    "pose_error": "pose error, degrees",
    "expression_error": "expression error",
    "identity/l2": "identity L2",
    "identity/centred_cosine": "identity cosine",
    LOST: "identity lost",
    "faces/undetected": "no face found",
}
"""Titles of the measures in tables and plots, in order. "<name>/with_failures" is shown in place of a face measure.
PSNR, multi-scale SSIM and flicker are only in results.json."""


def without_network(measure: str) -> str:
    """Remove the network from a measure's name: "identity/l2(NETWORK)" to "identity/l2"."""
    return measure.partition("(")[0]


def title_of(measure: str) -> str:
    """Return the title of a measure, with its network if it has one."""
    base, bracket, network = measure.partition("(")
    return TITLES[base] + (f" {bracket}{network}" if bracket else "")


def charge_of(measure: str) -> float | None:
    """Return the value charged for a frame without a face; None for measures that need no face."""
    charges = NAMED_CHARGES if "(" in measure else CHARGES
    return charges.get(without_network(measure))


def higher_is_better(measure: str) -> bool:
    """Return whether higher values are better, whatever the network."""
    return without_network(measure) in HIGHER_IS_BETTER


class Faces:
    """Face measures of all people's real targets, and the mean on which cosines are centered."""

    def __init__(self, measured: Mapping[str, FaceMeasures]) -> None:
        """Store all people's measures, by name.

        Raises:
            ValueError: if no face was detected in any frame.
        """
        self.of = measured
        frames = sum(len(faces.landmarks) for faces in measured.values())
        found = {name: faces.descriptors[np.isfinite(faces.descriptors).all(-1)] for name, faces in measured.items()}
        if not any(len(rows) for rows in found.values()):
            raise ValueError(
                f"the detector found no face in any of {frames} real target frames, so face metrics would be "
                "meaningless: check the data set, or give --no-faces"
            )
        self.mean = np.mean([rows.mean(0, dtype=np.float64) for rows in found.values() if len(rows)], axis=0)

    def undetected(self) -> int:
        """Number of real frames without a detected face."""
        return sum(int(np.isnan(faces.landmarks).any((1, 2)).sum()) for faces in self.of.values())


def own_table(
    held: HeldOut,
    frames: UInt8[np.ndarray, "S H W 3"],
    *,
    person: str,
    perceptual: PerceptualWeights,
    faces: Faces | None,
) -> Table:
    """Compute `heldout_table` for one person, with PSNR, multi-scale SSIM if frames are large enough, and flicker.

    Flicker is `temporal_flicker` between successive held-out frames, which are apart in the video. The first has none.
    `faces` are the measures of the real targets; None leaves out face measures. Each frozen network adds a measure.

    Raises:
        ValueError: if the frames have another shape.
    """
    real = None
    if faces is not None:
        real = RealFaces(FaceMeasures(*(part[None] for part in faces.of[person])), faces.mean)
    table = heldout_table(held, frames[None], perceptual=perceptual, faces=faces is not None, real=real)
    return {name: values[0] for name, values in table.items()} | _pixel_table(frames, np.asarray(held.target_frames)[0])


def _pixel_table(frames: np.ndarray, wanted: np.ndarray) -> Table:
    made, real = frames / 255.0, wanted / 255.0
    table = {"psnr": np.minimum(metrics.psnr(made, real), MAX_PSNR)}
    if min(frames.shape[1:3]) >= metrics.MS_SSIM_SMALLEST:
        table["ms_ssim"] = metrics.ms_ssim(made, real)
    if len(frames) > 1:
        table[FLICKER] = np.concatenate([[np.nan], metrics.temporal_flicker(made, reference=real)])
    return table


def cross_table(
    frames: UInt8[np.ndarray, "S H W 3"],
    landmarks: Float[np.ndarray, "S P 2"],
    *,
    pose: Float[np.ndarray, "S 3 3"],
    person: str,
    driver: str,
    faces: Faces,
    own_motion: bool = False,
    shown: str | None = None,
) -> Table:
    """Measure frames of a person driven by another one: whether identity is kept and the motion is followed.

    There is no real frame to compare pixels with. Identity is compared with all real targets of the person and averaged
    over them, expression with the driver's frames, and landmarks with the requested ones. Both poses of `pose_error` are
    read by a 3D face of their own person, because with one face for all, different people differ by degrees in equal poses.

    Args:
        frames: generated frames, or baselines.
        landmarks: landmarks given to the generator, in [0, 1].
        pose: expected head rotations, by `head_pose` from the data set's landmarks.
        person: person whose face is expected, by the name in `faces`.
        driver: person whose motion is expected.
        faces: face measures of all people's real targets.
        own_motion: whether the person's own motion is expected instead; the driver is then only who identity is lost to.
        shown: person whom the frames show, `person` by default.
    """
    made, theirs = measure_faces(frames), faces.of[person if own_motion else driver]
    read = head_pose(made.landmarks, known=faces.of[person if shown is None else shown].landmarks)
    own_distance = _mean_distance(made.descriptors, faces.of[person].descriptors)
    to_driver = _mean_distance(made.descriptors, faces.of[driver].descriptors)
    known = np.isfinite(own_distance) & np.isfinite(to_driver)
    return {
        "faces/undetected": np.isnan(made.landmarks).any((1, 2)).astype(np.float64),
        "landmark_error": metrics.landmark_error(made.landmarks, landmarks),
        "pose_error": metrics.rotation_angle(read, pose),
        "expression_error": metrics.expression_error(made.landmarks, theirs.landmarks),
        "identity/l2": own_distance,
        "identity/centred_cosine": _mean_cosine(made.descriptors, faces.of[person].descriptors, faces.mean),
        LOST: np.where(known, (to_driver < own_distance).astype(np.float64), np.nan),
    }


def head_pose(
    landmarks: Float[np.ndarray, "S P 2"], *, known: Float[np.ndarray, "N P 2"]
) -> Float[np.ndarray, "S 3 3"]:
    """Read head rotations by a 3D face that is fitted to frames of the same person; NaN for frames without landmarks.

    Args:
        landmarks: landmarks of the frames, in [0, 1].
        known: landmarks of frames that the person's 3D face is fitted to, NaN where none were found.
    """
    rotations = np.full((len(landmarks), 3, 3), np.nan)
    seen = known_frames(landmarks)
    if seen.any() and known_frames(known).any():
        frames = fit_frames(landmarks[seen], fit_identity(known))
        rotations[seen] = rotation(frames.angles)
    return rotations


def named_identity_table(
    made: Float[np.ndarray, "S D"], real: Mapping[str, Float[np.ndarray, "_ D"]], person: Person, *, network: str
) -> Table:
    """Measure identity by a given network: distances to the person's real targets, frame by frame, or their mean if driven.

    `made` are features of unit length, NaN where no face was detected; `real` has those of all people's real targets.
    """
    known = [rows[np.isfinite(rows).all(-1)] for rows in real.values()]
    mean = np.mean([rows.mean(0) for rows in known if len(rows)], axis=0)
    own = real[person.name]
    if person.driver is None:
        l2, cosine = metrics.identity_l2(made, own), metrics.centred_cosine(made, own, mean=mean)
    else:
        l2, cosine = _mean_distance(made, own), _mean_cosine(made, own, mean)
    return {f"identity/l2({network})": l2, f"identity/centred_cosine({network})": cosine}


def _pairs(made: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Pair every generated descriptor with every known real one."""
    real = real[np.isfinite(real).all(-1)]
    return np.repeat(made, len(real), axis=0), np.tile(real, (len(made), 1)), (len(made), len(real))


def _mean_distance(made: np.ndarray, real: np.ndarray) -> np.ndarray:
    ours, theirs, shape = _pairs(made, real)
    return _row_means(metrics.identity_l2(ours, theirs).reshape(shape))


def _mean_cosine(made: np.ndarray, real: np.ndarray, mean: np.ndarray) -> np.ndarray:
    ours, theirs, shape = _pairs(made, real)
    return _row_means(metrics.centred_cosine(ours, theirs, mean=mean).reshape(shape))


def _row_means(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.mean(1)) if values.shape[1] else np.full(len(values), np.nan)
