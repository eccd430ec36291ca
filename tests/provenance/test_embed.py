"""Watermark embedding: the requested PSNR in every frame, weaker on smooth skin, one program for all messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marked_heads import heads, marked, message_for, program, psnr

from th_jax.provenance.watermark.embed import default_psnr, embed, make_mark


@pytest.mark.parametrize("kind", ["still", "video"])
@pytest.mark.parametrize("size", [64, 128, 256])
def test_every_frame_has_the_wanted_psnr(size: int, kind: str) -> None:
    frames = heads(size)
    reached = psnr(frames, marked(frames, message_for(size, kind), kind=kind))
    wanted = default_psnr(size)
    assert np.all(reached >= wanted)
    assert np.all(reached < wanted + 0.5), "the room is used"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(20, 60), st.sampled_from(["flat", "noise", "black", "edges"]))
def test_the_bound_holds_for_any_frame(seed: int, wanted: float, content: str) -> None:
    rng = np.random.default_rng(seed)
    frames = np.full((2, 64, 64, 3), rng.integers(0, 256), np.uint8)
    if content == "noise":
        frames = rng.integers(0, 256, frames.shape, dtype=np.uint8)
    elif content == "edges":
        frames[:, :, rng.integers(1, 63) :] = 255
    elif content == "black":
        frames[:] = 0
    result = np.asarray(program(frames, make_mark(seed % 65536, size=64, kind="still", psnr=wanted)))
    with np.errstate(divide="ignore"):
        assert np.all(psnr(frames, result) >= wanted)


def test_smooth_areas_get_less() -> None:
    frames = np.full((1, 256, 256, 3), 120, np.uint8)
    frames[:, :, 128:] += np.random.default_rng(0).integers(0, 80, (1, 256, 128, 1), dtype=np.uint8)
    change = np.abs(marked(frames, 1).astype(int) - frames)[0, ..., 0]
    assert 1.3 < change[:, 140:].mean() / change[:, :116].mean() < 3


def test_in_small_frames_they_get_barely_less() -> None:
    frames = np.full((1, 64, 64, 3), 120, np.uint8)
    frames[:, :, 32:] += np.random.default_rng(0).integers(0, 80, (1, 64, 32, 1), dtype=np.uint8)
    change = np.abs(marked(frames, 1).astype(int) - frames)[0, ..., 0]
    assert 1.0 < change[:, 35:].mean() / change[:, :29].mean() < 1.25


def test_only_brightness_changes() -> None:
    frames = np.clip(heads(128), 20, 235)
    difference = marked(frames, 5).astype(int) - frames
    np.testing.assert_array_equal(difference[..., 0], difference[..., 1])
    np.testing.assert_array_equal(difference[..., 0], difference[..., 2])
    assert 2 < np.abs(difference).max() < 20


def test_other_messages_and_strengths_need_no_other_program() -> None:
    frames = heads(64)
    traces = []

    @jax.jit
    def traced(frames: jax.Array, mark: object) -> jax.Array:
        traces.append(1)
        return embed(frames, mark)

    results = [
        traced(frames, make_mark(m, size=64, kind="still", psnr=p)) for m, p in ((1, 38.0), (2, 38.0), (2, 41.0))
    ]
    assert len(traces) == 1
    assert np.any(results[0] != results[1])
    assert np.all(psnr(frames, np.asarray(results[2])) >= 41.0)


def test_it_maps_and_repeats() -> None:
    frames, mark = heads(64), make_mark(99, size=64, kind="video")
    whole = np.asarray(program(frames, mark))
    np.testing.assert_array_equal(np.asarray(program(frames, mark)), whole)
    mapped = jax.vmap(lambda frame: embed(frame[None], mark)[0])(jnp.asarray(frames))
    assert np.mean(np.asarray(mapped) != whole) < 1e-3, "another order of sums may round elsewhere"


def test_zero_chips_give_no_mark() -> None:
    frames, mark = heads(64), make_mark(0, size=64, kind="still")
    np.testing.assert_array_equal(program(frames, mark._replace(chips=0 * mark.chips)), frames)


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"psnr .* got 70"):
        make_mark(1, size=64, kind="still", psnr=70.0)
    with pytest.raises(ValueError, match="got 16 x 16"):
        make_mark(1, size=16, kind="still")
    with pytest.raises(ValueError, match="a message of 32 bits"):
        make_mark(1 << 32, size=256, kind="still")
