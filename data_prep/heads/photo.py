"""Draws the photographic parameters of a person: light, camera, room, framing and details of the skin."""

from typing import NamedTuple

import numpy as np

from data_prep.heads.backdrop import KINDS, Backdrop, linear
from data_prep.heads.camera import Camera
from data_prep.heads.environment import Environment, Lamp
from data_prep.heads.glasses import Glasses, draw_glasses
from data_prep.heads.identity import Color, Identity

WALLS: tuple[Color, ...] = (
    (0.86, 0.85, 0.82),
    (0.78, 0.76, 0.72),
    (0.70, 0.72, 0.74),
    (0.62, 0.58, 0.52),
    (0.52, 0.56, 0.60),
    (0.74, 0.68, 0.58),
    (0.40, 0.42, 0.46),
    (0.24, 0.25, 0.28),
    (0.56, 0.62, 0.56),
    (0.64, 0.52, 0.46),
    (0.16, 0.15, 0.15),
)
CLOTH: tuple[Color, ...] = (
    (0.09, 0.09, 0.10),
    (0.16, 0.16, 0.18),
    (0.86, 0.86, 0.85),
    (0.70, 0.71, 0.72),
    (0.13, 0.17, 0.28),
    (0.25, 0.34, 0.50),
    (0.60, 0.70, 0.80),
    (0.40, 0.12, 0.14),
    (0.20, 0.28, 0.22),
    (0.42, 0.40, 0.30),
    (0.66, 0.56, 0.44),
    (0.40, 0.30, 0.24),
    (0.74, 0.62, 0.62),
    (0.36, 0.26, 0.38),
)
WITH_GLASSES = 0.17
METERING, USUAL_SKIN = 0.4, 0.24  # share of a face's brightness that the camera takes back; the brightness it expects
GARMENTS = {"tee": 0.34, "jumper": 0.22, "shirt": 0.24, "jacket": 0.20}
PATTERNS = ("plain", "stripes", "bars", "check", "print")


class Garment(NamedTuple):
    """What is worn; `pattern` is a number into PATTERNS, `kind` one into GARMENTS."""

    kind: int
    pattern: int
    color: Color
    second: Color
    scale: float  # repeats a decimeter
    knit: float  # how coarse the cloth is, 0..1
    tie: bool


class SkinDetail(NamedTuple):
    """Strengths in 0..1."""

    pores: float
    blotches: float
    oil: float
    moles: float


class Photo(NamedTuple):
    """Everything besides the person that determines a photograph; constant within a clip."""

    seed: int
    environment: Environment
    backdrop: Backdrop
    camera: Camera
    garment: Garment
    detail: SkinDetail
    glasses: Glasses | None
    middle: tuple[float, float]  # where the neutral head's middle stands, x and y in shares of the image
    turns: float  # factor of the head's turns


def _kelvin(warmth: float) -> np.ndarray:
    """The color of light from bluish (-1) over white to a light bulb's (1), of mean 1."""
    color = np.array([1 + 0.28 * warmth, 1.0 - 0.02 * abs(warmth), 1 - 0.42 * warmth])
    return color / color.mean()


def _color(values: np.ndarray) -> Color:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue


def _draw_environment(rng: np.random.Generator) -> Environment:
    """Three to five lamps, sky and floor, so bright that a surface towards the camera gets about 1."""
    kind = str(rng.choice(["window", "office", "screen", "sun", "studio"], p=[0.32, 0.26, 0.16, 0.12, 0.14]))
    side = float(rng.choice([-1.0, 1.0]))
    first = {
        "window": (
            side * rng.uniform(0.5, 1.35),
            rng.uniform(0.05, 0.5),
            rng.uniform(-0.5, 0.1),
            rng.uniform(2.2, 3.5),
        ),
        "office": (rng.uniform(-0.8, 0.8), rng.uniform(0.75, 1.15), rng.uniform(-0.2, 0.4), rng.uniform(1.6, 3.2)),
        "screen": (rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.2), rng.uniform(-0.8, -0.1), rng.uniform(2.5, 3.5)),
        "sun": (side * rng.uniform(0.2, 1.5), rng.uniform(0.4, 1.0), rng.uniform(0.0, 0.5), rng.uniform(0.5, 1.2)),
        "studio": (side * rng.uniform(0.1, 0.8), rng.uniform(0.15, 0.6), rng.uniform(-0.1, 0.2), rng.uniform(1.5, 3.0)),
    }[kind]
    azimuth, elevation, warmth, softness = (float(value) for value in first)
    share = rng.uniform(0.35, 1.1) * (1.0 if kind != "screen" else 0.7)
    lamps = [(azimuth, elevation, share * _kelvin(warmth), rng.uniform(3.0, 6.0))]
    for _ in range(int(rng.integers(2, 5))):
        around = rng.uniform(-2.6, 2.6)
        strength = rng.uniform(0.03, 0.42) * (1.5 if abs(around) > 1.5 else 1.0)
        up = rng.uniform(-0.1, 1.0)
        lamps.append((around, up, strength * _kelvin(rng.uniform(-0.7, 0.9)), rng.uniform(1.5, 5.0)))
    sky = rng.uniform(0.12, 0.5) * _kelvin(rng.uniform(-0.4, 0.4))
    floor = rng.uniform(0.04, 0.25) * _kelvin(rng.uniform(0.0, 0.5))
    towards = sum(
        float(color.mean()) * max(np.cos(azimuth) * np.cos(elevation) + 0.12, 0.0)
        for azimuth, elevation, color, _ in lamps
    )
    total = towards + 0.5 * float(sky.mean() + floor.mean())
    return Environment(
        tuple(
            Lamp(round(float(a), 4), round(float(e), 4), _color(color / total), round(float(k), 3))
            for a, e, color, k in lamps
        ),
        _color(sky / total),
        _color(floor / total),
        round(softness, 3),
    )


def _draw_camera(rng: np.random.Generator) -> Camera:
    poor = rng.beta(1.1, 2.2)  # from a good camera to a cheap one in a dim room
    warmth = rng.normal(0, 0.35)
    return Camera(
        exposure=float(np.clip(rng.normal(0.12, 0.32), -0.7, 0.7)),
        red=1 + 0.10 * warmth,
        blue=1 - 0.14 * warmth + rng.normal(0, 0.03),
        contrast=rng.uniform(0.15, 0.75),
        black=float(rng.choice([0.0, rng.uniform(0, 0.06)])),
        saturation=rng.uniform(0.82, 1.15),
        vignetting=rng.uniform(0.0, 0.35) * rng.uniform(),
        defocus=0.35 + 0.75 * poor * rng.uniform(),
        sharpening=rng.uniform(0.2, 1.0) * (rng.random() < 0.5),
        shot=0.006 + 0.026 * poor * rng.uniform(),
        read=0.0008 + 0.003 * poor * rng.uniform(),
        grain=rng.uniform(0.4, 0.8),
        chroma=rng.uniform(0.1, 0.6),
        jpeg=int(rng.integers(35, 85)) if rng.random() < 0.6 else 0,
        halved=bool(rng.random() < 0.8),
        shake=rng.uniform(0.004, 0.035) if rng.random() < 0.5 else 0.0,
    )


def _draw_backdrop(rng: np.random.Generator, seed: int) -> Backdrop:
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    plain = kind == "wall"
    return Backdrop(
        kind=kind,
        seed=seed,
        color=_color(np.array(WALLS[rng.integers(len(WALLS))]) * rng.uniform(0.85, 1.1)),
        light=rng.uniform(0.4, 1.1),
        blur=rng.uniform(0.004, 0.05) if not plain else rng.uniform(0.0, 0.03),
        slope=rng.uniform(1.1, 2.0) if not plain else rng.uniform(1.6, 2.2),
        depth=rng.uniform(0.01, 0.07) if plain else rng.uniform(0.15, 0.9 if kind == "field" else 0.4),
    )


def _draw_garment(rng: np.random.Generator, male: bool) -> Garment:
    kind = int(rng.choice(len(GARMENTS), p=list(GARMENTS.values())))
    pattern = int(rng.choice(len(PATTERNS), p=[0.55, 0.15, 0.06, 0.13, 0.11]))
    first, second = (np.array(CLOTH[rng.integers(len(CLOTH))]) * rng.uniform(0.85, 1.1) for _ in range(2))
    return Garment(
        kind=kind,
        pattern=pattern,
        color=_color(first.clip(0, 0.92)),
        second=_color(second.clip(0, 0.92)),
        scale=rng.uniform(1.2, 5.0),
        knit=rng.uniform(0.0, 1.0),
        tie=bool((rng.random() < 0.5) and male),
    )


def draw_photo(identity: Identity, *, male: bool) -> Photo:
    """Draw the photographic parameters of a person; the same identity always gives the same."""
    rng = np.random.default_rng([identity.seed, 6])
    camera = _draw_camera(rng)
    # Cameras expose for the face, but not all the way.
    brightness = float(linear(np.array(identity.skin.color)) @ [0.21, 0.72, 0.07])
    metered = camera.exposure - METERING * float(np.log2(brightness / USUAL_SKIN))
    return Photo(
        seed=identity.seed,
        environment=_draw_environment(rng),
        backdrop=_draw_backdrop(rng, identity.seed),
        camera=camera._replace(exposure=round(metered, 4)),
        garment=_draw_garment(rng, male),
        detail=SkinDetail(rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0), rng.uniform(0, 1)),
        glasses=draw_glasses(rng) if rng.random() < WITH_GLASSES else None,
        middle=(0.5 + rng.uniform(-0.06, 0.06), 0.475 + rng.uniform(-0.05, 0.05)),
        turns=rng.uniform(1.2, 1.5) if rng.random() < 0.4 else rng.uniform(0.7, 1.1),
    )
