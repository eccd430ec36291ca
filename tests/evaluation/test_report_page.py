"""The page of a report: names are escaped, unknown values leave gaps, and nothing is fetched."""

import math
import re

import numpy as np

from th_jax.evaluation.report_page import Plot, Point, Row, Section, report_page

HOSTILE = "<script>alert('x')</script>&\""


def test_names_from_data_are_escaped() -> None:
    plot = Plot(
        HOSTILE, {HOSTILE: [Point(0.0, 1.0, 0.5, 1.5)], "b": []}, [(0.0, HOSTILE)], HOSTILE, levels={HOSTILE: 1.2}
    )
    row = Row(HOSTILE, [HOSTILE], np.zeros((2, 2, 3), np.uint8))
    section = Section(HOSTILE, [HOSTILE], [HOSTILE], [[HOSTILE] * 3] * 2, [plot], [row])
    page = report_page(HOSTILE, [section])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page


def test_values_that_nobody_knows_leave_gaps() -> None:
    unknown = Point(1.0, math.nan, math.nan, math.nan)
    plot = Plot("quality", {"a": [Point(0.0, 2.0, math.nan, math.nan), unknown]}, [(0.0, "1"), (1.0, "8")], "T")
    page = report_page("gaps", [Section("plots", plots=[plot, plot._replace(series={"a": [unknown]})])])
    assert page.count("<circle") == 1
    assert "no values" in page
    assert "nan" not in page


def test_higher_values_stand_higher_and_intervals_around_them() -> None:
    points = [Point(0.0, 1.0, 0.8, 1.3), Point(3.0, 2.0, 1.9, 2.2)]
    page = report_page("t", [Section("plots", plots=[Plot("q", {"a": points}, [(0.0, "1"), (3.0, "8")], "T")])])
    circles = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)]
    assert circles[0][0] < circles[1][0]
    assert circles[0][1] > circles[1][1]
    bars = re.findall(r'<line x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)" stroke="#2f6db3"', page)
    for (_, middle), (low, high) in zip(circles, bars, strict=True):
        assert float(low) > middle > float(high)
