"""Webcam model: converts a linear image to bytes with a camera's defects, drawn once per person."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

REFERENCE = 128  # pixels of an image; lengths below are in pixels of one so large
STEPS = 2047  # of the tone curve's table


class Camera(NamedTuple):
    """Defects of a camera. Widths are standard deviations in pixels of a 128-pixel image."""

    exposure: float  # stops
    red: float  # white balance, factors of linear light
    blue: float
    contrast: float  # 0 (none)..1
    black: float  # display value of black
    saturation: float
    vignetting: float  # share of light lost in the corners
    defocus: float
    sharpening: float
    shot: float  # standard deviation of the noise where linear light is 1
    read: float  # and where it is 0
    grain: float  # width of a grain of noise
    chroma: float  # share of the noise that differs between colors
    jpeg: int  # quality of the first compression; 0 = none
    halved: bool  # whether it halves the resolution of color
    shake: float  # seconds that the shutter is open


def _tone_table(camera: Camera) -> Float[np.ndarray, " N"]:
    """Convert linear light in 0..2 to display values in 0..255."""
    light = np.linspace(0, 2, STEPS + 1)
    rolled = np.where(light < 0.6, light, 0.6 + 0.4 * (1 - np.exp(-(light - 0.6) / 0.4)))
    value = np.where(rolled < 0.0031308, 12.92 * rolled, 1.055 * np.maximum(rolled, 1e-9) ** (1 / 2.4) - 0.055)
    curve = value * value * (3 - 2 * value)
    value = value + (curve - value) * camera.contrast
    return (255 * (camera.black + (1 - camera.black) * value)).astype(np.float32)


def _grains(rng: np.random.Generator, side: int, width: float, channels: int) -> Float[np.ndarray, "S S C"]:
    """Draw noise of unit variance whose grains are `width` pixels wide."""
    noise = rng.standard_normal((side, side, channels), np.float32)
    if width < 0.3:
        return noise
    blurred = cv2.GaussianBlur(noise, (0, 0), width).reshape(noise.shape)
    return blurred / max(float(blurred.std()), 1e-6)


def _streak(image: np.ndarray, motion: Float[np.ndarray, "2"]) -> np.ndarray:
    """Average along a path of `motion` pixels (x, y)."""
    steps = int(np.ceil(np.abs(motion).max())) + 1
    total = np.zeros_like(image)
    for share in np.linspace(-0.5, 0.5, steps):
        shift = np.array([[1, 0, share * motion[0]], [0, 1, share * motion[1]]], np.float32)
        total += cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return total / steps


def photograph(
    light: Float[np.ndarray, "S S 3"],
    camera: Camera,
    rng: np.random.Generator,
    *,
    head: Float[np.ndarray, "S S"],
    velocity: Float[np.ndarray, "2"],
) -> UInt8[np.ndarray, "S S 3"]:
    """Photograph linear light.

    White is 1 at exposure 0; `light` is overwritten. `head` is the share of the head in each pixel, and `velocity` that
    of the head in the image, x and y, in image widths per second.
    """
    side = len(light)
    unit = side / REFERENCE
    motion = velocity * camera.shake * side
    if np.abs(motion).max() > 0.5:
        moving = cv2.GaussianBlur(head, (0, 0), 1.5 * unit)[..., None]
        light += (_streak(light, motion) - light) * np.clip(1.6 * moving, 0, 1)
    width = camera.defocus * unit * float(rng.uniform(0.85, 1.15))
    if width > 0.25:
        light = cv2.GaussianBlur(light, (0, 0), width)
    place = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    fall = 1 - camera.vignetting * 2 * (place[:, None] ** 2 + place[None] ** 2)
    gain = np.array([camera.red, 1.0, camera.blue], np.float32) * 2 ** (camera.exposure + rng.normal(0, 0.02))
    light *= fall[..., None] * gain
    grains = _grains(rng, side, camera.grain * unit, 3)
    grains = (1 - camera.chroma) * grains[..., :1] + camera.chroma * grains
    # An image of another size has been averaged: its grains are as strong as those of an image of 128 pixels.
    light += grains * np.sqrt(np.maximum(light, 0) * camera.shot**2 + camera.read**2)
    place = np.clip(light * (STEPS / 2), 0, STEPS)
    image = _tone_table(camera)[place.astype(np.int32)]
    gray = image @ np.array([0.3, 0.59, 0.11], np.float32)
    image = gray[..., None] + (image - gray[..., None]) * camera.saturation
    if camera.sharpening > 0:
        image += camera.sharpening * (image - cv2.GaussianBlur(image, (0, 0), 0.9 * unit))
    frame = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return _compressed(frame, camera) if camera.jpeg else frame


def _compressed(frame: UInt8[np.ndarray, "S S 3"], camera: Camera) -> UInt8[np.ndarray, "S S 3"]:
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if camera.halved else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    settings = (cv2.IMWRITE_JPEG_QUALITY, camera.jpeg, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
    _, jpeg = cv2.imencode(".jpg", frame[..., ::-1], settings)
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert image is not None  # it was encoded a line above
    return np.ascontiguousarray(image[..., ::-1].astype(np.uint8, copy=False))
