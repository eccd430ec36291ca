"""The bound on the false-positive probability holds for scores of unmarked images."""

import numpy as np
import pytest
from marked_heads import heads, marked

from th_jax.provenance.watermark import detect as detection
from th_jax.provenance.watermark.detect import detect, detect_video
from th_jax.provenance.watermark.layout import SMALL, STILL, Layout, chips_of, decode
from th_jax.provenance.watermark.search import Place, Size, read_chips
from th_jax.provenance.watermark.view import view_of

KEYS = [b"key %d" % number for number in range(60)]


def values_at(frames: np.ndarray, layout: Layout) -> np.ndarray:
    """Chips over their norm, as if a mark filled the frames."""
    size = Size(layout.chips, float(frames.shape[1]))
    view = view_of(frames, sizes=lambda shape: [size])
    values = read_chips(view.chart(size), Place(0.0, 0.0, size.side, 0.0), layout=layout)
    return values / np.linalg.norm(values)


@pytest.mark.parametrize(("side", "layout", "frames"), [(64, SMALL, 1), (64, SMALL, 5), (128, STILL, 1)])
def test_scores_of_one_message_are_of_mean_0_and_deviation_1(side: int, layout: Layout, frames: int) -> None:
    people = heads(side, people=8, frames=frames).reshape(8, frames, side, side, 3)
    values = [values_at(person, layout) for person in people]
    scores = np.array([[float((v * chips_of(9, layout=layout, key=key)).sum()) for key in KEYS] for v in values])
    assert abs(scores.mean()) < 0.15
    assert 0.9 < scores.std() < 1.1
    assert np.abs(scores).max() < 4.8


def test_the_best_of_all_messages_stays_below_the_bound() -> None:
    """exp(-z^2 / 2) times 65,536 messages must be below x for less than a share x of keys."""
    values = [values_at(person[None], SMALL) for person in heads(64, people=8)]
    scores = np.array([decode(v, layout=SMALL, key=key).total for v in values for key in KEYS[:25]])
    bounds = 65536 * np.exp(-(scores**2) / 2)
    for share in (0.5, 0.1, 0.01):
        assert np.mean(bounds < share) <= share


def test_the_bound_counts_refinements_sizes_and_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The false-positive probability is proportional to the number of tries."""
    canvas = np.full((100, 110, 3), 200, np.uint8)
    canvas[20:84, 30:94] = marked(heads(64)[:1], 5)[0]
    video = [marked(heads(64)[:1], 5, kind="video")[0]]

    def log10_chances() -> np.ndarray:
        return np.array([detect(canvas).marks[0].log10_chance, detect_video(video).marks[0].log10_chance])

    before = log10_chances()
    for name, value, rises in (
        ("REFINEMENTS", 10 * detection.REFINEMENTS, (1.0, 0.0)),  # the video is one mark, at one place
        ("_STAGES", (2 * detection._STAGES[0], *detection._STAGES[1:]), (np.log10(2), 0.0)),
        ("LOOKS", 10 * detection.LOOKS, (0.0, 1.0)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(detection, name, value)
            np.testing.assert_allclose(log10_chances() - before, rises, atol=1e-6, err_msg=name)


def test_whole_searches_find_almost_nothing() -> None:
    people = heads(64, people=2)
    found = [detect(person, key=key, false_finds=0.5).marks != () for person in people for key in KEYS[:4]]
    assert np.mean(found) <= 0.25
