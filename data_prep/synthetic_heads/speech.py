"""Moves the lips and jaw of a talking head: phrases of syllables, each a consonant's and a vowel's mouth shape."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

# Mouth shapes by sound; a unit without Left or Right moves both sides.
CONSONANTS: tuple[dict[str, float], ...] = (
    {"mouthPress": 0.45, "mouthRollLower": 0.25, "mouthRollUpper": 0.25},  # m, b, p
    {"jawOpen": 0.08, "mouthRollLower": 0.50, "mouthUpperUp": 0.30},  # f, v
    {"jawOpen": 0.20, "tongueOut": 0.15, "mouthLowerDown": 0.20},  # l, d, th
    {"jawOpen": 0.07, "mouthStretch": 0.35, "mouthLowerDown": 0.35, "mouthUpperUp": 0.20},  # s, z
    {"jawOpen": 0.12, "mouthFunnel": 0.60},  # sh, r
)
VOWELS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.62, "mouthLowerDown": 0.30, "mouthUpperUp": 0.20},  # a
    {"jawOpen": 0.38, "mouthStretch": 0.40, "mouthSmile": 0.20, "mouthLowerDown": 0.25},  # e
    {"jawOpen": 0.18, "mouthSmile": 0.45, "mouthStretch": 0.30, "mouthLowerDown": 0.20},  # i
    {"jawOpen": 0.45, "mouthFunnel": 0.60, "mouthPucker": 0.15},  # o
    {"jawOpen": 0.16, "mouthPucker": 0.75, "mouthFunnel": 0.25},  # u
)
SHORTEST_SYLLABLE, LONGEST_SYLLABLE = 0.12, 0.36  # seconds
COARTICULATION = 0.030  # seconds over which neighbouring sounds run into each other


def spread_sides(shape: dict[str, float], index: dict[str, int]) -> Float[np.ndarray, " U"]:
    """A mouth shape as weights of all face units.

    Raises:
        KeyError: if a name is a unit neither by itself nor with Left and Right.
    """
    weights = np.zeros(len(index), np.float32)
    for name, weight in shape.items():
        for unit in (name,) if name in index else (name + "Left", name + "Right"):
            weights[index[unit]] = weight
    return weights


def speak(
    rng: np.random.Generator, times: Float[np.ndarray, " T"], index: dict[str, int]
) -> tuple[Float[np.ndarray, "T U"], Float[np.ndarray, " T"]]:
    """Weights of the face units at evenly spaced times, and how loud the speaker is (0 in pauses).

    Args:
        rng: the speaker's source of chance.
        times: seconds, rising in equal steps.
        index: face unit name -> column.
    """
    end = float(times[-1])
    consonants = [spread_sides(shape, index) for shape in CONSONANTS]
    vowels = [spread_sides(shape, index) for shape in VOWELS]
    silent = np.zeros(len(index), np.float32)
    effort = rng.uniform(0.75, 1.15)
    shapes: list[np.ndarray] = [silent]
    keys, loud = [0.0], [0.0]
    now = rng.uniform(0.0, 0.4)
    while now < end:
        phrase_end = now + rng.uniform(1.2, 4.5)
        while now < phrase_end:
            length = float(np.clip(rng.normal(0.21, 0.06), SHORTEST_SYLLABLE, LONGEST_SYLLABLE))
            stress = effort * rng.uniform(0.55, 1.2)
            if rng.random() < 0.85:
                keys.append(now + 0.2 * length)
                shapes.append(consonants[rng.integers(len(consonants))] * min(effort, 1.0))
                loud.append(stress)
            keys.append(now + 0.65 * length)
            shapes.append(vowels[rng.integers(len(vowels))] * stress)
            loud.append(stress)
            now += length
        pause = rng.uniform(0.25, 1.3)
        for share in (0.15, 0.85):
            keys.append(now + share * pause)
            shapes.append(silent)
            loud.append(0.0)
        now += pause
    place = np.interp(times, keys, np.arange(len(keys)))
    before = np.minimum(place.astype(int), len(keys) - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (place - before))
    stacked = np.stack(shapes)
    units = stacked[before] * (1 - share[:, None]) + stacked[before + 1] * share[:, None]
    blur = COARTICULATION / max(float(times[1] - times[0]), 1e-6) if len(times) > 1 else 0.0
    if blur > 0.1:
        units = gaussian_filter1d(units, blur, axis=0, mode="nearest")
    return np.clip(units, 0, 1).astype(np.float32), np.interp(times, keys, loud)
