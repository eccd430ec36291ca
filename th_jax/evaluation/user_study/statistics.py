"""Shares with confidence intervals, and measures of agreement between raters."""

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple


class Share(NamedTuple):
    """A share of answers with its interval, all in [0, 1]."""

    found: int
    of: int
    value: float
    low: float
    high: float


def wilson_share(found: int, of: int, *, confidence: float = 0.95) -> Share | None:
    """Compute the share `found / of` with Wilson's score interval (1927), in [0, 1]; None if `of` is 0.

    The interval assumes independent answers, which several answers of one rater are not quite.

    Raises:
        ValueError: if `found` is not in 0..of, or the confidence is not between 0 and 1.
    """
    if not 0 <= found <= of or not 0 < confidence < 1:
        raise ValueError(
            f"a proportion needs 0 <= found <= of and a confidence in (0, 1), got {found}, {of}, {confidence}"
        )
    if of == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = found / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    # Rounding may leave 0 and 1 by an ulp, and put the share outside its own interval.
    return Share(found, of, share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))


def pairwise_agreement(units: Sequence[Sequence[int]]) -> float | None:
    """Compute the share of pairs of raters of the same unit with equal choices; None if no unit has two raters.

    `units` are the choices for each triplet, one per rater.
    """
    pairs = sum(len(choices) * (len(choices) - 1) for choices in units)
    if not pairs:
        return None
    return sum(count * (count - 1) for choices in units for count in Counter(choices).values()) / pairs


def krippendorff_alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Compute Krippendorff's alpha for nominal data: 1 for perfect agreement, 0 for chance, negative for less.

    Units may have any number of raters; those with fewer than two are ignored. None if there are no others, or if all
    choices are equal, where chance would agree as well. `units` are the choices for each triplet, one per rater.
    """
    paired = [choices for choices in units if len(choices) > 1]
    total = sum(map(len, paired))
    # Ordered pairs that disagree within a unit, each unit weighted by 1 / (raters - 1), against those of all choices
    # pooled.
    observed = sum(_disagreeing(choices) / (len(choices) - 1) for choices in paired)
    pooled = _disagreeing([choice for choices in paired for choice in choices])
    if not pooled:
        return None
    return 1 - observed * (total - 1) / pooled


def _disagreeing(choices: Sequence[int]) -> int:
    return len(choices) ** 2 - sum(count * count for count in Counter(choices).values())
