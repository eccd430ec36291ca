"""Each threshold has images on both of its sides, and their numbers are those that preparation compares with it."""

from itertools import pairwise

import numpy as np
import pytest

from data_prep.build.quality import Thresholds
from data_prep.build.sample_frames import look_at_photo
from data_prep.tools.threshold_figures import examples, row

REFUSED_BELOW = {"face", "sharpness", "brightness", "duplicate"}
"""Faces that are small, soft or dark, and images that hardly differ; of all else there may be too much."""

QUICK = ["face", "sharpness", "brightness", "points_outside", "duplicate"]
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("landmark_jump", "same_person")]


@pytest.mark.parametrize("name", QUICK + LONG)
def test_both_sides_are_shown_in_order(name):
    shown = examples(name, thresholds=Thresholds())
    assert len(shown) == 6
    changes = sum(a.kept != b.kept for a, b in pairwise(shown))
    assert changes == 1
    limit = getattr(Thresholds(), name)
    for example in shown:
        assert example.kept == (example.value >= limit if name in REFUSED_BELOW else example.value <= limit)
    image = row(shown)
    assert image.shape == (154, 834, 3)
    assert np.array_equal(image[0, 0], (70, 150, 80) if shown[0].kept else (190, 50, 50))


def test_another_threshold_moves_the_border():
    assert sum(e.kept for e in examples("brightness", thresholds=Thresholds(brightness=90.0))) == 2


def test_preparation_comes_to_the_same_judgement():
    for example in examples("brightness", thresholds=Thresholds())[:4]:
        look = look_at_photo(example.frame, thresholds=Thresholds())
        assert (look.reason is None) == example.kept
        if not example.kept:
            assert look.numbers["brightness"] == pytest.approx(example.value, abs=4)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"there are figures of face, sharpness, .* but not of 'frames'"):
        examples("frames", thresholds=Thresholds())
