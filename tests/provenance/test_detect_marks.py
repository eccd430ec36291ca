"""Watermark detection: what marks survive, where they are found, and no false detections."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from marked_heads import cropped, heads, jpeg, marked, message_for, resized

from th_jax.media import open_video
from th_jax.provenance import Kind, Provenance, write_video
from th_jax.provenance.watermark.detect import FALSE_FINDS, Findings, detect, detect_video

SIZES = (64, 128, 256)
WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clean": lambda image: image,
    "jpeg 75": lambda image: jpeg(image, 75),
    "resized": lambda image: resized(image, 0.75),
    "half": lambda image: resized(image, 0.5),
    "odd size": lambda image: resized(image, 0.87),
    "twice": lambda image: resized(image, 2.0),
    "cropped": lambda image: cropped(image, left=5, top=2),
    "cropped, then resized": lambda image: resized(cropped(image, left=3, top=5), 0.9),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
}


def messages(findings: Findings) -> list[int]:
    return [mark.message for mark in findings.marks]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_stills_are_read(size: int, way: str) -> None:
    message = message_for(size, "still")
    images = marked(heads(size, people=2), message)
    for image in images:
        findings = detect(WAYS[way](image))
        assert messages(findings) == [message]
        assert findings.marks[0].log10_chance <= np.log10(FALSE_FINDS)
        assert findings.complete


def test_strong_compression_at_256() -> None:
    message = message_for(256, "still")
    for image in marked(heads(256, people=3), message):
        assert messages(detect(jpeg(image, 50))) == [message]
        assert messages(detect(jpeg(cropped(image, left=11, top=20), 50))) == [message]


@pytest.mark.parametrize("size", SIZES)
def test_panels_of_a_larger_image(size: int) -> None:
    people = heads(size, people=3)
    canvas = np.full((size + 30, 3 * size + 20, 3), 255, np.uint8)
    corners = [(5, 12), (size + 10, 7), (2 * size + 15, 20)]
    expected = {}
    for index, ((left, top), person) in enumerate(zip(corners, people, strict=True)):
        panel = person
        if index != 1:  # the middle one is not marked
            message = message_for(size, "still", seed=index)
            panel, expected[message] = marked(person[None], message)[0], (left, top)
        canvas[top : top + size, left : left + size] = panel
    found = {mark.message: mark for mark in detect(canvas).marks}
    assert found.keys() == expected.keys()
    for message, (left, top) in expected.items():
        mark = found[message]
        np.testing.assert_allclose([mark.left, mark.top, mark.side], [left, top, size], atol=size / 60)


@pytest.mark.parametrize(("size", "bits"), [(64, 16), (128, 16), (256, 48)])
def test_videos_are_read_after_h264(size: int, bits: int, tmp_path: Path) -> None:
    message = message_for(size, "video")
    frames = marked(heads(size, people=1, frames=25), message, kind="video")
    path = tmp_path / "video.mp4"
    # A figure: what is generated would get another mark on its way out.
    write_video(path, frames, fps=25, provenance=Provenance(kind=Kind.FIGURE), crf=23)
    with open_video(path) as video:
        findings = detect_video(frame for _, frame in video.frames())
    assert messages(findings) == [message]
    assert findings.marks[0].bits == bits


def test_videos_are_read_only_as_far_as_needed() -> None:
    message = message_for(64, "video")
    plain, signed = heads(64)[0], marked(heads(64)[:1], message, kind="video")[0]
    taken = []

    def frames_between() -> Iterator[np.ndarray]:
        for index in range(10_000):
            taken.append(index)
            yield plain if index < 25 else signed

    assert messages(detect_video(frames_between())) == [message]
    assert len(taken) == 50


def test_long_videos_without_a_mark_are_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("th_jax.provenance.watermark.detect.LOOKS", 2)
    plain = heads(64)[0]
    assert detect_video(itertools.repeat(plain)) == Findings((), False)
    assert detect_video(itertools.repeat(plain, 50)) == Findings((), True)


def test_sizes_over_the_budget_are_skipped_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    image = resized(marked(heads(128)[:1], 5)[0], 0.87)[:100]
    assert messages(detect(image)) == [5]
    monkeypatch.setattr("th_jax.provenance.watermark.detect.BUDGET", 200_000)
    assert detect(image) == Findings((), False)


def test_short_and_empty_videos() -> None:
    message = message_for(64, "video")
    frames = marked(heads(64)[:1], message, kind="video")
    assert messages(detect_video(iter(frames))) == [message]
    assert detect_video([]) == Findings((), True)
    assert detect_video(heads(64)[:3]).marks == ()


def test_unmarked_images_have_no_marks() -> None:
    rng = np.random.default_rng(0)
    hosts = heads(128, people=6, frames=2)
    for index, (image, side) in enumerate(zip(hosts, itertools.cycle((48, 64, 90, 128)), strict=False)):
        left, top = rng.integers(0, 128 - side + 1, 2)
        noisy = image[top : top + side, left : left + side] + rng.normal(scale=3 * (index % 2), size=(side, side, 3))
        assert detect(np.clip(noisy, 0, 255).astype(np.uint8)).marks == ()
    assert detect(heads(256)[0]).marks == ()


def test_the_key_is_needed() -> None:
    image = marked(heads(128)[:1], 77, key=b"ours")[0]
    assert messages(detect(image, key=b"ours")) == [77]
    assert detect(image).marks == ()


def test_results_repeat() -> None:
    image = resized(marked(heads(128)[:1], 4321)[0], 1.1)
    assert detect(image) == detect(image)


@settings(max_examples=15, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 90), st.just(3))))
def test_no_image_is_an_error(image: np.ndarray) -> None:
    assert detect(image).marks == ()


@pytest.mark.parametrize("shape", [(1, 5_000), (5_000, 1), (3, 3), (40, 1_000)])
def test_odd_shapes_have_no_marks(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    assert detect(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).marks == ()


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"got float64 \[64, 64, 3\]"):
        detect(np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match=r"got uint8 \[64, 64\]"):
        detect(np.zeros((64, 64), np.uint8))
    with pytest.raises(ValueError, match=r"got uint8 \[0, 64, 3\]"):
        detect(np.zeros((0, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"false_finds .* got 0"):
        detect(heads(64)[0], false_finds=0.0)
    with pytest.raises(ValueError, match="same size, but 32 x 64 follows 64 x 64"):
        detect_video([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)])
