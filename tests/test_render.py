"""Frames of an avatar: of any number through one program, the same alone, in chunks and as a stream."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax import render as render_module
from th_jax.images import to_uint8
from th_jax.models import networks as networks_module
from th_jax.models.networks import Networks, group
from th_jax.render import draw_stream, generate_frames, render, render_stream
from th_jax.training.finetune import avatar_from_embedding, avatar_of, feed_forward, start_finetune
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.types import Avatar, MetaWeights, Shots

NETWORKS = Networks(image_size=16, base_width=4)


@functools.cache
def weights() -> MetaWeights:
    return NETWORKS.init(jax.random.key(0))


@functools.cache
def avatar(seed: int = 1) -> Avatar:
    embedding = jax.random.normal(jax.random.key(seed), (NETWORKS.plan.embedding,))
    return avatar_from_embedding(NETWORKS, weights(), embedding)


def points(count: int, *, seed: int = 0, of: int = 68) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (count, of, 2)).astype(np.float32)


def test_frames_are_those_of_the_generator() -> None:
    landmarks = points(5)
    rendered = render(NETWORKS, avatar(), landmarks, chunk=4)
    assert (rendered.shape, rendered.dtype) == ((5, 16, 16, 3), np.uint8)
    for frame, one in zip(rendered, landmarks, strict=True):
        drawn = NETWORKS.landmark_image(jnp.asarray(one)[None])
        want = NETWORKS.generate(group(weights().synthesis, "generator"), drawn, avatar().adain[None])
        assert np.abs(frame.astype(int) - np.asarray(to_uint8(want))[0]).max() <= 1  # rounding in other programs
    assert np.abs(rendered[0].astype(int) - rendered[1]).max() > 0


def test_one_program_serves_all_lengths_people_and_equal_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[Any] = []
    draw = networks_module.draw_landmarks

    def counted(landmarks: Any, **settings: Any) -> Any:
        traces.append(landmarks.shape)
        return draw(landmarks, **settings)

    monkeypatch.setattr(networks_module, "draw_landmarks", counted)
    jax.clear_caches()  # other tests may have compiled it
    for count in (1, 3, 6, 7, 0):
        for person in (avatar(), avatar(2)):
            equal = Networks(image_size=16, base_width=4)
            assert len(render(equal, person, points(count), chunk=3)) == count
    assert traces == [(3, 68, 2)]


def test_arrays_bound_to_a_device_need_no_program_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = jax.device_put(avatar(), jax.devices()[0])
    on_host = jax.device_get(avatar())
    monkeypatch.setattr(render_module, "cached_jit", lambda function, key: jax.jit(function))
    render_module._renderer.cache_clear()  # other tests may have compiled it
    frames = [render(NETWORKS, person, points(3), chunk=3) for person in (avatar(), bound, on_host)]
    assert render_module._renderer(NETWORKS)._cache_size() == 1
    render_module._renderer.cache_clear()
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_chunks_and_streams_give_the_same_frames() -> None:
    landmarks = points(7)
    whole = render(NETWORKS, avatar(), landmarks, chunk=4)
    for start in range(7):
        np.testing.assert_array_equal(
            render(NETWORKS, avatar(), landmarks[start : start + 1], chunk=4)[0], whole[start]
        )
    streamed = list(render_stream(NETWORKS, avatar(), iter(landmarks), chunk=4))
    np.testing.assert_array_equal(np.stack(streamed), whole)


def test_a_stream_reads_no_further_than_two_chunks() -> None:
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for one in points(40):
            read += 1
            yield one

    frames = render_stream(NETWORKS, avatar(), source(), chunk=4)
    assert read == 0
    for index, _ in enumerate(frames):
        assert read <= index + 8
    assert (index, read) == (39, 40)


def test_fine_tuning_begins_with_the_feed_forward_frames_to_the_bit() -> None:
    """At step 0 (paper, section 3.3), through the same program."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    shots = Shots(frames, points(8), np.array([1] * 5 + [0] * 3, np.float32))
    optimizers = Optimizers(AdamSettings(1e-3), AdamSettings(1e-3))
    start = start_finetune(NETWORKS, weights(), shots, optimizers=optimizers, key=jax.random.key(0))
    driving = points(6, seed=5)
    one = render(NETWORKS, feed_forward(NETWORKS, weights(), shots), driving, chunk=4)
    other = render(NETWORKS, avatar_of(start), driving, chunk=4)
    np.testing.assert_array_equal(one, other)


def test_the_pure_form_works_inside_jit_and_vmap() -> None:
    landmarks = np.stack([points(4), points(4, seed=1)])
    people = jax.tree.map(lambda a, b: jnp.stack([jnp.asarray(a), jnp.asarray(b)]), avatar(), avatar(2))
    both = jax.jit(jax.vmap(functools.partial(generate_frames, NETWORKS)))(people, jnp.asarray(landmarks))
    for person, frames, given in zip((avatar(), avatar(2)), both, landmarks, strict=True):
        want = render(NETWORKS, person, given, chunk=4)
        assert np.abs(np.asarray(frames).astype(int) - want).max() <= 1


def test_landmark_images_to_look_at() -> None:
    landmarks = points(3)
    drawn = np.stack(list(draw_stream(landmarks, networks=NETWORKS, chunk=2)))
    want = np.asarray(to_uint8(NETWORKS.landmark_image(jnp.asarray(landmarks))))
    np.testing.assert_array_equal(drawn, want)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((3, 68, 3), np.float32), r"must be \[P, 2\], got \[68, 3\]"),
        (np.zeros((3, 5, 2), np.float32), "68 iBUG points"),
        ([np.zeros((68, 2), np.float32), np.zeros((70, 2), np.float32)], "same number of landmarks, got 68 and 70"),
    ],
)
def test_landmarks_of_other_shapes(landmarks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(render_stream(NETWORKS, avatar(), iter(landmarks)))


def test_chunks_hold_a_frame() -> None:
    with pytest.raises(ValueError, match="chunk must be at least 1 frame, got 0"):
        render(NETWORKS, avatar(), points(2), chunk=0)
