"""Draws the people of photographs: softer women, calmer shapes, skin measured in linear light."""

import numpy as np

from data_prep.heads.identity import (
    IRIS,
    Brows,
    Clothes,
    Color,
    Identity,
    Light,
    Skin,
    check_seed,
    draw_beard,
    draw_hair,
    mix,
    tint,
)
from data_prep.heads.shape import draw_shape

# Display values of skin's reflectance, from fair to dark.
SKIN_SCALE: tuple[Color, ...] = (
    (0.78, 0.65, 0.58),
    (0.73, 0.58, 0.50),
    (0.64, 0.48, 0.39),
    (0.49, 0.36, 0.29),
    (0.36, 0.27, 0.225),
)
# Mean weights of targets that make a woman's face softer than the mesh's own.
SOFTER = {
    "chin/chin-width-decr": 0.18,
    "chin/chin-bones-decr": 0.2,
    "chin/chin-height-decr": 0.12,
    "nose/nose-scale-horiz-decr": 0.15,
    "nose/nose-hump-decr": 0.15,
    "nose/nose-volume-decr": 0.1,
    "eyes/l-eye-scale-incr": 0.15,
    "eyes/r-eye-scale-incr": 0.15,
    "mouth/mouth-upperlip-volume-incr": 0.15,
    "mouth/mouth-lowerlip-volume-incr": 0.12,
    "mouth/mouth-scale-horiz-decr": 0.08,
    "neck/neck-scale-horiz-decr": 0.25,
    "neck/neck-scale-depth-decr": 0.15,
    "head/head-age-decr": 0.2,
}
HAIR_GRAYER = 0.3  # drawn hair is more colorful than any in linear light
CHILDREN = 0.14  # share of people
CALM = 0.75  # factor of the spread of shapes


def _skin_color(darkness: float, rng: np.random.Generator) -> Color:
    place = darkness * (len(SKIN_SCALE) - 1)
    low = min(int(place), len(SKIN_SCALE) - 2)
    color = mix(SKIN_SCALE[low], SKIN_SCALE[low + 1], place - low)
    warm = rng.normal(0, 0.025)
    red, green, blue = tint(color, rng.uniform(0.95, 1.05))
    return red * (1 + 0.4 * warm), green, blue * (1 - 1.3 * warm)


def is_male(seed: int) -> bool:
    """Return whether the person of a seed is a man or boy."""
    return bool(np.random.default_rng([seed, 4]).random() < 0.5)


def _calmed(shape: tuple[tuple[str, float], ...], *, woman: float, child: float) -> tuple[tuple[str, float], ...]:
    """The shape with smaller deviations, a woman's mean, and a share of a child's."""
    weights = {name: value if name.startswith(("ancestry/", "weight/")) else CALM * value for name, value in shape}
    for name in [name for name in weights if child > 0 and name.startswith(("ancestry/", "weight/"))]:
        weights[name.replace("-young", "-child")] = child * weights[name]
        weights[name] *= 1 - child
    for name, value in SOFTER.items():
        weights[name] = weights.get(name, 0.0) + woman * value
    return tuple((name, round(value, 5)) for name, value in weights.items())


def draw_photo_identity(seed: int, *, allow_reserved: bool = False) -> Identity:
    """Draw the person of a seed in the photo style, who differs from that of `draw_identity`.

    Raises:
        ValueError: for a negative or reserved seed.
    """
    check_seed(seed, allow_reserved=allow_reserved)
    man = is_male(seed)
    rng = np.random.default_rng([seed, 5])
    ancestry = rng.dirichlet([0.5] * 3)
    male = float(rng.uniform(0.8, 1.0) if man else rng.uniform(0.0, 0.1))
    child = float(rng.uniform(0.35, 1.0)) if rng.random() < CHILDREN else 0.0
    old = float(rng.beta(0.9, 1.7)) if child == 0 else 0.0
    darkness = float(np.clip(ancestry @ np.array([0.84, 0.30, 0.12]) + rng.normal(0, 0.09), 0, 1))
    skin = _skin_color(darkness, rng)
    hair, brow_color = draw_hair(rng, male=male, old=old, darkness=darkness)
    made_up = not man and child == 0 and rng.random() < 0.3
    rouge: Color = (0.60, 0.15, 0.18) if made_up else (0.62, 0.30, 0.29)
    if hair.style == "bald" and (child > 0 or rng.random() < 0.5):
        hair = hair._replace(style="short", volume=rng.uniform(0.08, 0.13))
    gray = 0.35 * hair.color[0] + 0.5 * hair.color[1] + 0.15 * hair.color[2]
    hair = hair._replace(color=mix(hair.color, (gray, gray, gray), HAIR_GRAYER))
    lips = mix(tint(skin, 0.93), tint(rouge, 1.0 - 0.45 * darkness), rng.uniform(0.4, 0.65))
    iris_odds = [0.45, 0.25, 0.15, 0.1, 0.05] if darkness < 0.4 else [0.75, 0.25, 0, 0, 0]
    high = rng.random() < 0.5
    return Identity(
        seed=seed,
        shape=_calmed(
            draw_shape(rng, ancestry=ancestry, male=male, old=old), woman=0.0 if man else 1.0 - child, child=child
        ),
        skin=Skin(
            color=skin,
            lips=lips,
            blush=rng.uniform(0.2, 0.8),
            freckles=rng.uniform(0.2, 0.7) if darkness < 0.35 and rng.random() < 0.25 else 0.0,
            wrinkles=float(np.clip(old * 1.2 - 0.3, 0, 1)),
            tired_eyes=(rng.uniform(0.1, 0.5) + 0.3 * old) * (1 - 0.7 * child),
        ),
        iris=tint(IRIS[rng.choice(5, p=iris_odds)], rng.uniform(0.85, 1.15)),
        brows=Brows(
            height=rng.uniform(7.455, 7.51) + (0.0 if man else 0.012),
            arch=rng.uniform(0.02, 0.05) + (0.0 if man else 0.012),
            thickness=rng.uniform(0.020, 0.032) + 0.012 * male if man and child == 0 else rng.uniform(0.015, 0.026),
            tilt=rng.uniform(-0.02, 0.02),
            strength=(rng.uniform(0.6, 0.95) if man else rng.uniform(0.5, 0.85)) * (1 - 0.2 * child),
            color=tint(brow_color, 0.9),
        ),
        hair=hair,
        beard=draw_beard(rng, male=male if child == 0 else 0.0, color=tint(brow_color, 0.9)),
        clothes=Clothes(
            color=(0.5, 0.5, 0.5),  # photographs have garments
            collar=rng.uniform(5.95, 6.08) if high else rng.uniform(5.55, 5.80),
            neckline=float(rng.choice([0.0, 0.12, 0.3])),
            thickness=rng.uniform(0.03, 0.07),
        ),
        background=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        light=Light(0.0, 0.0, 1.0, 0.0),
        framing=rng.uniform(0.61, 0.745) + (0.02 if hair.style == "afro" else 0.0),
    )
