"""All metrics: pure functions from arrays to one number per image, frame or pair, without imports from this package.

Results do not depend on the batch size, because every image is measured by itself. Images and feature pyramids are
measured where they are: numpy arrays in float64 on the host, JAX arrays in their own precision on their device, also
inside jit. Faces and distributions are measured in float64 on the host.
"""

from th_jax.evaluation.metrics.distributions import KernelDistance, frechet_distance, kid, polynomial_mmd
from th_jax.evaluation.metrics.faces import (
    centred_cosine,
    expression_error,
    expression_measures,
    head_rotation,
    identity_l2,
    interocular_distance,
    landmark_error,
    pose_error,
    rotation_angle,
)
from th_jax.evaluation.metrics.failures import ScoreWithFailures, score_with_failures
from th_jax.evaluation.metrics.images import box_l1, l1, perceptual_distance, psnr, temporal_flicker
from th_jax.evaluation.metrics.lpips import lpips
from th_jax.evaluation.metrics.similarity import MS_SSIM_SMALLEST, SSIM_SMALLEST, ms_ssim, ssim

__all__ = [
    "MS_SSIM_SMALLEST",
    "SSIM_SMALLEST",
    "KernelDistance",
    "ScoreWithFailures",
    "box_l1",
    "centred_cosine",
    "expression_error",
    "expression_measures",
    "frechet_distance",
    "head_rotation",
    "identity_l2",
    "interocular_distance",
    "kid",
    "l1",
    "landmark_error",
    "lpips",
    "ms_ssim",
    "perceptual_distance",
    "polynomial_mmd",
    "pose_error",
    "psnr",
    "rotation_angle",
    "score_with_failures",
    "ssim",
    "temporal_flicker",
]
