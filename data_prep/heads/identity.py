"""Draws a person from a seed: everything that stays constant while they talk, as plain numbers."""

from typing import NamedTuple

import numpy as np

from data_prep.heads.shape import draw_shape

Color = tuple[float, float, float]  # display red, green, blue in 0..1
RESERVED_FROM = 900_000

BACKGROUNDS: tuple[Color, ...] = (
    (0.80, 0.80, 0.78),
    (0.56, 0.60, 0.64),
    (0.30, 0.33, 0.38),
    (0.62, 0.72, 0.82),
    (0.36, 0.48, 0.62),
    (0.64, 0.74, 0.62),
    (0.82, 0.72, 0.58),
    (0.70, 0.54, 0.50),
)
CLOTHES: tuple[Color, ...] = (
    (0.10, 0.11, 0.13),
    (0.82, 0.82, 0.80),
    (0.16, 0.22, 0.38),
    (0.48, 0.13, 0.14),
    (0.16, 0.34, 0.24),
    (0.45, 0.46, 0.48),
    (0.76, 0.60, 0.26),
    (0.36, 0.22, 0.40),
)
# black, dark brown, brown, light brown, blond, red, gray, white
HAIR: tuple[Color, ...] = (
    (0.075, 0.065, 0.060),
    (0.14, 0.09, 0.06),
    (0.27, 0.17, 0.10),
    (0.40, 0.28, 0.17),
    (0.62, 0.49, 0.32),
    (0.46, 0.19, 0.08),
    (0.45, 0.44, 0.43),
    (0.78, 0.77, 0.75),
)
IRIS: tuple[Color, ...] = (
    (0.17, 0.10, 0.06),
    (0.32, 0.19, 0.09),
    (0.30, 0.45, 0.60),
    (0.33, 0.45, 0.28),
    (0.42, 0.45, 0.47),
)
# Styles and how frequent they are.
MENS_HAIR = {"bald": 0.12, "buzz": 0.20, "short": 0.34, "quiff": 0.20, "afro": 0.06, "bob": 0.08}
WOMENS_HAIR = {"buzz": 0.03, "short": 0.10, "quiff": 0.04, "afro": 0.07, "bob": 0.27, "long": 0.32, "tied": 0.17}


class Skin(NamedTuple):
    """The skin's colors; strengths are in 0..1."""

    color: Color
    lips: Color
    blush: float
    freckles: float
    wrinkles: float
    tired_eyes: float


class Brows(NamedTuple):
    """Both brows in the rest pose: height above the base mesh's origin, arch and half thickness in decimeters."""

    height: float
    arch: float
    thickness: float
    tilt: float
    strength: float
    color: Color


class Hair(NamedTuple):
    """`length` is the height at which hanging hair ends; `fringe` the height it reaches on the forehead."""

    style: str
    color: Color
    volume: float
    hairline: float
    recession: float
    length: float
    fringe: float
    parting: float
    curl: float


class Beard(NamedTuple):
    """Strengths in 0..1 by place, and the length of the hairs in decimeters."""

    jaw: float
    chin: float
    moustache: float
    length: float
    color: Color


class Clothes(NamedTuple):
    """One color; the collar's height at the throat, how deep its V is, and how thick the cloth."""

    color: Color
    collar: float
    neckline: float
    thickness: float


class Light(NamedTuple):
    """The key light's direction in radians (0, 0 = from the camera), its share, and its warmth in -1..1."""

    azimuth: float
    elevation: float
    key: float
    warmth: float


class Identity(NamedTuple):
    """One person in front of one background under one light; hashable, so that work on it can be kept."""

    seed: int
    shape: tuple[tuple[str, float], ...]
    skin: Skin
    iris: Color
    brows: Brows
    hair: Hair
    beard: Beard
    clothes: Clothes
    background: tuple[Color, Color]
    light: Light
    framing: float  # neutral head, chin to top of hair, as a share of the image's height


def check_seed(seed: int, *, allow_reserved: bool = False) -> None:
    """Check that a person may be drawn from a seed.

    Raises:
        ValueError: for a negative seed, or a reserved one unless it is allowed.
    """
    if seed < 0:
        raise ValueError(f"a person's seed must be 0 or more, got {seed}")
    if seed >= RESERVED_FROM and not allow_reserved:
        raise ValueError(
            f"seed {seed} is reserved: people from {RESERVED_FROM} on are for evaluating trained models; "
            f"choose a smaller seed, or pass allow_reserved=True for an evaluation"
        )


def tint(color: Color, factor: float) -> Color:
    """The color made brighter or darker, within 0..1."""
    red, green, blue = (float(np.clip(channel * factor, 0.0, 1.0)) for channel in color)
    return red, green, blue


def mix(first: Color, second: Color, share: float) -> Color:
    """The first color with a share of the second."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return float(red), float(green), float(blue)


def _skin_color(darkness: float, rng: np.random.Generator) -> Color:
    scale: tuple[Color, ...] = (
        (0.93, 0.75, 0.66),
        (0.86, 0.64, 0.51),
        (0.72, 0.49, 0.35),
        (0.46, 0.29, 0.20),
        (0.31, 0.20, 0.15),
    )
    place = darkness * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    color = tint(mix(scale[low], scale[low + 1], place - low), rng.uniform(0.95, 1.05))
    return mix(color, (0.80 * color[0], 0.66 * color[0], 0.48 * color[0]), rng.uniform(0.0, 0.5))


def draw_hair(rng: np.random.Generator, *, male: float, old: float, darkness: float) -> tuple[Hair, Color]:
    """The hair, and the color it had before it turned gray (brows stay nearer to it)."""
    fair = np.array([0.22, 0.22, 0.19, 0.14, 0.15, 0.08])
    natural = fair if darkness < 0.27 else np.array([0.68, 0.23, 0.09, 0, 0, 0])
    young = tint(HAIR[rng.choice(6, p=natural / natural.sum())], rng.uniform(0.85, 1.2))
    gray = float(np.clip((old - 0.45) * 2.2 + rng.normal(0, 0.2), 0, 1)) if old > 0.4 else 0.0
    color = mix(young, HAIR[6 + rng.integers(2)], gray)
    odds = MENS_HAIR if male > 0.5 else WOMENS_HAIR
    style = str(rng.choice(list(odds), p=list(odds.values())))
    volume = {"bald": 0.0, "buzz": 0.015, "short": 0.10, "quiff": 0.20, "afro": 0.50, "tied": 0.045}.get(style, 0.11)
    hanging = style in ("bob", "long")
    hair = Hair(
        style=style,
        color=color,
        volume=volume * rng.uniform(0.75, 1.25),
        hairline=rng.uniform(7.93, 8.09) + 0.05 * old * male,
        recession=float(np.clip(rng.normal(0.05, 0.2) + 0.9 * (old - 0.35), 0, 0.8) * male),
        length={"bob": rng.uniform(6.0, 6.4), "long": rng.uniform(4.9, 5.7)}.get(style, 0.0),
        fringe=rng.uniform(7.58, 7.75) if hanging and rng.random() < 0.35 else 8.3,
        parting=rng.uniform(-0.35, 0.35) if rng.random() < 0.6 else 0.0,
        curl=float(rng.uniform(0.6, 1.0) if style == "afro" else rng.uniform(0.0, 0.6) * (rng.random() < 0.5)),
    )
    return hair, mix(young, color, 0.6)


def draw_beard(rng: np.random.Generator, *, male: float, color: Color) -> Beard:
    """A man's beard, if he has one."""
    kind = str(rng.choice(["none", "stubble", "moustache", "goatee", "full"], p=[0.40, 0.22, 0.08, 0.10, 0.20]))
    if male < 0.5 or kind == "none":
        return Beard(0.0, 0.0, 0.0, 0.0, color)
    if kind == "stubble":
        strength = rng.uniform(0.25, 0.55)
        return Beard(strength, strength, strength * 0.9, 0.0, color)
    strength, length = rng.uniform(0.75, 0.95), rng.uniform(0.03, 0.09)
    places = {"moustache": (0.0, 0.0, 1.0), "goatee": (0.0, 1.0, 1.0), "full": (1.0, 1.0, 1.0)}[kind]
    jaw, chin, moustache = (float(strength * place) for place in places)
    return Beard(jaw, chin, moustache, length * (1.6 if kind == "full" and rng.random() < 0.4 else 1.0), color)


def draw_identity(seed: int, *, allow_reserved: bool = False) -> Identity:
    """Draw the person of a seed; the same seed always gives the same person.

    Raises:
        ValueError: for a negative or reserved seed.
    """
    check_seed(seed, allow_reserved=allow_reserved)
    rng = np.random.default_rng([seed, 1])
    ancestry = rng.dirichlet([0.55] * 3)
    male = float(np.clip(rng.beta(0.35, 0.35), 0.08, 0.92))
    old = float(rng.beta(0.8, 1.3))
    darkness = float(np.clip(ancestry @ np.array([0.84, 0.30, 0.14]) + rng.normal(0, 0.09), 0, 1))
    skin_color = _skin_color(darkness, rng)
    hair, brow_color = draw_hair(rng, male=male, old=old, darkness=darkness)
    rouge: Color = (0.72, 0.16, 0.22) if male < 0.5 and rng.random() < 0.4 else (0.66, 0.33, 0.32)
    lips = mix(tint(skin_color, 0.92), tint(rouge, 1.0 - 0.5 * darkness), rng.uniform(0.35, 0.7))
    first = int(rng.integers(len(BACKGROUNDS)))
    second = first if rng.random() < 0.35 else int(rng.integers(len(BACKGROUNDS)))
    iris_odds = [0.45, 0.25, 0.15, 0.1, 0.05] if darkness < 0.4 else [0.75, 0.25, 0, 0, 0]
    return Identity(
        seed=seed,
        shape=draw_shape(rng, ancestry=ancestry, male=male, old=old),
        skin=Skin(
            color=skin_color,
            lips=lips,
            blush=rng.uniform(0.1, 0.8),
            freckles=rng.uniform(0.3, 0.9) if darkness < 0.35 and rng.random() < 0.25 else 0.0,
            wrinkles=float(np.clip(old * 1.3 - 0.25, 0, 1)),
            tired_eyes=rng.uniform(0.1, 0.6) + 0.3 * old,
        ),
        iris=tint(IRIS[rng.choice(5, p=iris_odds)], rng.uniform(0.85, 1.15)),
        brows=Brows(
            height=rng.uniform(7.455, 7.515),
            arch=rng.uniform(0.02, 0.06),
            thickness=rng.uniform(0.020, 0.036) + 0.012 * male,
            tilt=rng.uniform(-0.02, 0.02),
            strength=rng.uniform(0.7, 1.0),
            color=tint(brow_color, 0.8),
        ),
        hair=hair,
        beard=draw_beard(rng, male=male, color=tint(brow_color, 0.9)),
        clothes=Clothes(
            color=tint(CLOTHES[rng.integers(len(CLOTHES))], rng.uniform(0.85, 1.1)),
            collar=rng.uniform(5.50, 5.78) if rng.random() < 0.8 else rng.uniform(5.95, 6.1),
            neckline=float(rng.choice([0.0, 0.15, 0.45])),
            thickness=rng.uniform(0.03, 0.07),
        ),
        background=(BACKGROUNDS[first], BACKGROUNDS[second]),
        light=Light(rng.uniform(-0.9, 0.9), rng.uniform(0.15, 0.75), rng.uniform(0.6, 1.0), rng.uniform(-1, 1)),
        framing=rng.uniform(0.66, 0.72) + (0.06 if hair.style == "afro" else 0.0),
    )
