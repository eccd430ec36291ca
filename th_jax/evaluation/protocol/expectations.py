"""Expectations based on the paper, compared with measured paired differences and their intervals, in words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from th_jax.evaluation.bootstrap import Estimate
from th_jax.evaluation.protocol.measure import HIGHER_IS_BETTER, TITLES
from th_jax.evaluation.protocol.results import CHARGED, MethodAtShots, Scores, shown_measure

SEEN, OPPOSITE, UNDECIDED = "seen", "the opposite was seen", "not seen"
"""Verdicts as stored in results.json."""


class Expectation(NamedTuple):
    """The expectation that one method is better than another in a measure."""

    claim: str
    better: MethodAtShots
    worse: MethodAtShots
    measure: str
    paper: str
    """The paper's values (VoxCeleb2), or another source of the expectation."""


def expectations(scores: Scores) -> list[Expectation]:
    """Return the expectations for which the run has scores."""
    counts = sorted({count for method, count in scores.tables if method == "FT"})
    low, high = counts[0], counts[-1]
    crossed = ("driver", 0) in scores.tables
    asked: list[Expectation] = []
    if not crossed:
        networks = [name for name in ("vgg19_distance", "vgg16_distance") if name in scores.tables["FT", low]]
        ssim, cosine, distance = "ssim", "identity/centred_cosine", "".join(networks[:1])
        if high > low:
            asked += [
                _more("FF", low, high, ssim, "SSIM .61, .64, .65 for T = 1, 8, 32"),
                _more("FF", low, high, cosine, "CSIM .42, .47, .48"),
                _more("FF", low, high, distance, "FID 46.1, 42.2, 40.4"),
                _more("FT", low, high, ssim, "SSIM .64, .68, .72"),
                _more("FT", low, high, cosine, "CSIM .35, .42, .45"),
                _more("FT", low, high, distance, "FID 48.5, 42.2, 30.6"),
            ]
        asked += [
            _tuned(high, ssim, "SSIM .72 against .65 at T = 32"),
            _tuned(high, distance, "FID 30.6 against 40.4 at T = 32"),
        ]
        claim = f"at T = {high} feed-forward frames preserve identity better than fine-tuned ones"
        asked.append(Expectation(claim, ("FF", high), ("FT", high), cosine, "CSIM .48 against .45 at T = 32"))
    else:
        claim = f"at T = {high} the head follows its driver better than the nearest copied frame does"
        asked.append(Expectation(claim, ("FT", high), ("nearest_copy", high), "pose_error", "the purpose of driving"))
    measures = ("identity/l2",) if crossed else ("l1/box", "landmark_error", "identity/l2")
    other: MethodAtShots = ("driver", 0) if crossed else ("nearest_copy", high)
    name = "the driver's own frames" if crossed else "the nearest copied frame"
    for method in ("FF", "FT"):
        for measure in measures:
            claim = f"at T = {high} {method} is better than {name}"
            asked.append(Expectation(claim, (method, high), other, measure, "the purpose of a generator"))
    return [
        one
        for one in asked
        if all(shown_measure(one.measure) in scores.tables.get(cell, {}) for cell in (one.better, one.worse))
    ]


def judged(scores: Scores) -> list[dict[str, Any]]:
    """Compare every expectation with the measured difference, as JSON values.

    "seen" and its opposite require an interval without zero. Each expectation has its own interval; of many, some miss
    the true value.
    """
    rows = []
    for one in expectations(scores):
        name = shown_measure(one.measure)
        difference = scores.difference(one.better, one.worse, name)
        gain = difference if one.measure in HIGHER_IS_BETTER else _turned(difference)
        verdict = SEEN if gain.low > 0 else OPPOSITE if gain.high < 0 else UNDECIDED
        rows.append(
            {
                "claim": one.claim,
                "measure": name,
                "paper": one.paper,
                "better": list(one.better),
                "worse": list(one.worse),
                "difference": difference._asdict(),
                "verdict": verdict,
            }
        )
    return rows


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe each comparison in a sentence, unconfirmed ones first."""
    order = {OPPOSITE: 0, UNDECIDED: 1, SEEN: 2}
    return [_sentence(row) for row in sorted(rows, key=lambda row: order[row["verdict"]])]


def _sentence(row: Mapping[str, Any]) -> str:
    found = row["difference"]
    title = TITLES[row["measure"].removesuffix(CHARGED)]
    verdict = {SEEN: "Confirmed", OPPOSITE: "The opposite was found", UNDECIDED: "Not confirmed"}[row["verdict"]]
    numbers = f"difference {found['value']:+.3f}, 95 % interval {found['low']:+.3f} to {found['high']:+.3f}"
    return f"{verdict}: {row['claim']} ({title}). Here: {numbers}, {found['people']} people. Paper: {row['paper']}."


def _more(method: str, low: int, high: int, measure: str, paper: str) -> Expectation:
    claim = f"{method} is better with {high} shots than with {low}"
    return Expectation(claim, (method, high), (method, low), measure, paper)


def _tuned(count: int, measure: str, paper: str) -> Expectation:
    claim = f"at T = {count} fine-tuned frames are better than feed-forward ones"
    return Expectation(claim, ("FT", count), ("FF", count), measure, paper)


def _turned(estimate: Estimate) -> Estimate:
    return estimate._replace(value=-estimate.value, low=-estimate.high, high=-estimate.low)
