"""Avatars of gray images generate gray frames, keep that in their files, and color stays where it was."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import th_jax
from th_jax.avatars.file import networks_for, read_tensors, write_tensors
from th_jax.models.networks import Networks
from th_jax.provenance.watermark.messages import marking_of
from th_jax.render import render
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots
from th_jax.weights import MetaModel

NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture(scope="module")
def meta() -> MetaModel:
    weights = NETWORKS.init(jax.random.key(0))
    return MetaModel(networks=NETWORKS, weights=weights, perceptual={}, description={"name": "tiny"}, digest="0" * 64)


def shots(*, gray: bool, spots: float = 0.0) -> Shots:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    if gray:
        noise = rng.integers(-1, 2, frames.shape)
        frames = np.clip(frames[..., :1].astype(int) + noise, 0, 255).astype(np.uint8)
        frames[rng.uniform(size=frames.shape[:3]) < spots] = (200, 40, 40)
    points = rng.uniform(0.2, 0.8, (2, 68, 2)).astype(np.float32)
    return Shots(frames, points, np.ones(2, np.float32))


def chroma(frames: np.ndarray) -> int:
    return int(np.ptp(frames.astype(int), axis=-1).max())


def test_gray_shots_make_gray_frames_after_saving_too(meta: MetaModel, tmp_path: Path) -> None:
    seen = shots(gray=True)
    plain = render(NETWORKS, th_jax.finetune(meta, shots(gray=False), train=False).avatar, seen.landmarks)
    assert chroma(plain) > 20  # networks that know nothing of people generate colors
    avatar = th_jax.finetune(meta, seen, train=False)
    frames = avatar.render(seen.landmarks)
    assert chroma(frames) <= 2
    assert frames.std() > 1
    avatar.save(tmp_path / "gray.safetensors")
    again = th_jax.load_avatar(tmp_path / "gray.safetensors")
    np.testing.assert_array_equal(again.render(seen.landmarks), frames)


def test_gray_is_the_luma_of_what_would_have_been_generated(meta: MetaModel) -> None:
    seen = shots(gray=True)
    avatar = th_jax.finetune(meta, seen, train=False)
    colored = render(NETWORKS, avatar.avatar, seen.landmarks).astype(np.float64)
    luma = colored @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(avatar.render(seen.landmarks)[..., 0], luma, atol=1.0)


def test_a_watermark_adds_no_color() -> None:
    gray, points = dataclasses.replace(NETWORKS, image_size=64, gray=True), shots(gray=True).landmarks
    weights = gray.init(jax.random.key(0))
    avatar = jax.jit(feed_forward, static_argnums=0)(
        gray, weights, Shots(np.full((1, 64, 64, 3), 90, np.uint8), points[:1], np.ones(1, np.float32))
    )
    marking = marking_of("0" * 64, size=64, kind="video")
    assert marking is not None
    marked = render(gray, avatar, points, chunk=2, mark=marking.mark)
    assert (marked != render(gray, avatar, points, chunk=2)).any()
    assert chroma(marked) <= 2


@pytest.mark.parametrize(("gray", "spots", "expected"), [(True, 0.0, True), (False, 0.0, False), (True, 0.05, False)])
def test_only_gray_shots_count_as_gray(gray: bool, spots: float, expected: bool) -> None:
    seen = shots(gray=gray, spots=spots)
    assert networks_for(NETWORKS, seen).gray is expected
    padded = Shots(
        np.concatenate([seen.frames, shots(gray=False).frames]),
        np.concatenate([seen.landmarks] * 2),
        np.array([1, 1, 0, 0], np.float32),
    )
    assert networks_for(NETWORKS, padded).gray is expected, "padding does not count"


def test_avatars_without_the_setting_are_colored(meta: MetaModel, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    th_jax.finetune(meta, shots(gray=False), train=False).save(path)
    tensors, description, _ = read_tensors(path)
    described = json.loads(json.dumps(description))
    assert described["networks"].pop("gray") is False
    assert described["networks"].pop("pupils") == "soft"
    write_tensors(path, tensors, described)
    old = th_jax.load_avatar(path)
    assert (old.networks.gray, old.networks.pupils) == (False, "soft")
