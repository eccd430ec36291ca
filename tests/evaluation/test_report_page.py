"""The report page: names are escaped, unknown values leave gaps, and no resource is fetched."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from th_jax.evaluation.report_page import Plot, Point, Row, Section, plots_drawing, report_page, stacked_images

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
    drawing = ElementTree.fromstring(plots_drawing([section]))
    assert HOSTILE in [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]


def test_unknown_values_leave_gaps() -> None:
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


def test_a_drawing_has_every_plot_within_its_frame() -> None:
    plot = Plot("quality", {"a": [Point(0.0, 2.0, 1.0, 3.0)], "b": [Point(1.0, 4.0, 3.5, 4.5)]}, [(0.0, "1")], "T")
    gap = plot._replace(series={"a": [Point(0.0, math.nan, math.nan, math.nan)]})
    sections = [Section("empty"), Section("first", plots=[plot] * 4), Section("second", plots=[gap])]
    drawing = ElementTree.fromstring(plots_drawing(sections))
    width, height = (int(drawing.attrib[side]) for side in ("width", "height"))
    groups = drawing.findall("{http://www.w3.org/2000/svg}g")
    places = [tuple(map(int, re.findall(r"\d+", group.attrib["transform"]))) for group in groups]
    assert len(set(places)) == 5
    assert all(x < width and y + 230 < height for x, y in places)
    words = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("quality") == 5
    assert {"first", "second", "a", "b", "no values"} <= set(words)
    assert "empty" not in words


def test_images_are_stacked_whole() -> None:
    wide, narrow = np.full((2, 9, 3), 10, np.uint8), np.full((3, 4, 3), 20, np.uint8)
    stack = stacked_images([Section("a", rows=[Row("w", [], wide)]), Section("b", rows=[Row("n", [], narrow)])], gap=5)
    assert stack.shape == (10, 9, 3)
    np.testing.assert_array_equal(stack[:2], wide)
    np.testing.assert_array_equal(stack[7:, :4], narrow)
    assert (stack[2:7] == 255).all()
    with pytest.raises(ValueError, match="no images to stack"):
        stacked_images([Section("none")])
