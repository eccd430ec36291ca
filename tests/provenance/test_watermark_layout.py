"""Chips and codes: keyed, platform-independent, and decoded to the most likely word."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from th_jax.provenance.watermark.layout import (
    LAYOUTS,
    MEDIUM,
    SMALL,
    STILL,
    VIDEO,
    Layout,
    carriers_of,
    chips_of,
    decode,
    layout_of,
)


@pytest.mark.parametrize(
    ("size", "kind", "layout"),
    [(64, "still", SMALL), (64, "video", SMALL), (128, "video", MEDIUM), (256, "still", STILL), (256, "video", VIDEO)],
)
def test_layouts_by_size(size: int, kind: str, layout: object) -> None:
    assert layout_of(size, kind) == layout


def test_messages_are_as_long_as_promised() -> None:
    assert [layout.bits for layout in LAYOUTS] == [16, 16, 32, 48]


def test_chips_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(
        b"".join(np.sign(chips_of(1, layout=layout)).astype(np.int8).tobytes() for layout in LAYOUTS)
    )
    assert digest.hexdigest() == "f698c4dc23340dd9d4beba30521aace4ac55138ba0fa64b1482f3dca1c9b7883"


@given(st.sampled_from(LAYOUTS), st.data())
@settings(max_examples=20, deadline=None)
def test_every_message_round_trips(layout: object, data: st.DataObject) -> None:
    message = data.draw(st.integers(0, (1 << layout.bits) - 1))
    chips = chips_of(message, layout=layout)
    assert set(np.unique(chips)) == {-1.0, 1.0}
    word = decode(chips, layout=layout)
    assert word.message == message
    assert word.total == chips.size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_decoded_word_is_the_most_likely_one(layout: object) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(layout.chips, layout.chips)).astype(np.float32)
    word = decode(values, layout=layout)
    assert word.total == pytest.approx(float((values * chips_of(word.message, layout=layout)).sum()), rel=1e-4)
    others = (int(m) for m in rng.integers(0, 1 << layout.bits, 200))
    assert all(word.total >= float((values * chips_of(m, layout=layout)).sum()) for m in others)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chips_of_different_messages_are_far_apart(layout: object) -> None:
    block = carriers_of(layout).block
    one, other = chips_of(0, layout=layout), chips_of(1, layout=layout)
    np.testing.assert_array_equal(one[block != 0], other[block != 0])
    assert 0.4 < np.mean(one[block == 0] != other[block == 0]) < 0.6


def test_layouts_of_one_size_share_their_search_pattern() -> None:
    carriers = [carriers_of(layout) for layout in (MEDIUM, STILL, VIDEO)]
    for other in carriers[1:]:
        np.testing.assert_array_equal(other.signs, carriers[0].signs)
        np.testing.assert_array_equal(other.block < 0, carriers[0].block < 0)
    assert np.sum(carriers[0].block < 0) == STILL.sync


def test_another_key_is_another_mark() -> None:
    agreement = np.mean(chips_of(7, layout=STILL) * chips_of(7, layout=STILL, key=b"mine"))
    assert abs(agreement) < 0.1


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"16 bits .* got 65536"):
        chips_of(1 << 16, layout=SMALL)
    with pytest.raises(ValueError, match="must be 0 to"):
        chips_of(-1, layout=STILL)
    with pytest.raises(ValueError, match="got 32 x 32"):
        layout_of(32, "still")


@pytest.mark.parametrize(("layout", "noise"), [(SMALL, 5.0), (VIDEO, 6.0)], ids=["16 bits", "48 bits"])
def test_messages_are_wrong_as_often_as_the_doubt_predicts(layout: Layout, noise: float) -> None:
    rng = np.random.default_rng(0)
    doubts, wrong = [], []
    for _ in range(60):
        message = int(rng.integers(0, 1 << layout.bits))
        chips = chips_of(message, layout=layout)
        word = decode((chips + rng.normal(0, noise, chips.shape)).astype(np.float32), layout=layout)
        doubts.append(word.doubt)
        wrong.append(word.message != message)
        assert decode(chips + rng.normal(0, 1, chips.shape).astype(np.float32), layout=layout).doubt < 1e-9
    assert 5 < sum(wrong) < 55, "neither always nor never"
    spread = np.sqrt(sum(d * (1 - d) for d in doubts))
    assert abs(sum(doubts) - sum(wrong)) < 4 * spread
    assert np.mean(np.array(doubts)[wrong]) > np.mean(np.array(doubts)[~np.array(wrong)])


def test_values_of_no_mark_have_full_doubt() -> None:
    values = -chips_of(7, layout=SMALL)
    assert decode(values, layout=SMALL).doubt > 0.99
    assert decode(np.zeros_like(values), layout=SMALL).doubt > 0.99
