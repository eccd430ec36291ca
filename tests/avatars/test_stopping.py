"""Early stopping: which shots are held out, what is scored, and when it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.avatars import early_stopping as stopping
from th_jax.avatars.early_stopping import Stopper, StoppingSettings, split_shots
from th_jax.evaluation.face_measures import FaceMeasures
from th_jax.models.networks import Networks
from th_jax.types import Avatar, Shots

NETWORKS = Networks(image_size=16, base_width=4)


def shots(real: int, *, total: int) -> Shots:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (total, 16, 16, 3), dtype=np.uint8)
    landmarks = rng.uniform(0.2, 0.8, (total, 68, 2)).astype(np.float32)
    return Shots(frames, landmarks, (np.arange(total) < real).astype(np.float32))


@pytest.mark.parametrize(("real", "total", "held"), [(8, 8, 2), (16, 32, 4), (32, 32, 8), (9, 32, 2)])
def test_real_shots_are_split(real: int, total: int, held: int) -> None:
    everything = shots(real, total=total)
    trained, held_out = split_shots(everything, StoppingSettings())
    assert held_out is not None
    assert (len(trained.mask), len(held_out.mask)) == (real - held, held)
    assert trained.mask.all()
    assert held_out.mask.all()
    np.testing.assert_array_equal(trained.frames[0], everything.frames[0], "the most typical pose is trained on")
    together = np.concatenate([trained.frames, held_out.frames]).reshape(real, -1)
    assert {row.tobytes() for row in together} == {frame.tobytes() for frame in everything.frames[:real]}


def test_few_shots_are_all_trained_on() -> None:
    few = shots(7, total=8)
    assert split_shots(few, StoppingSettings()) == (few, None)


@pytest.mark.parametrize(
    "settings",
    [
        StoppingSettings(from_shots=2),
        StoppingSettings(from_shots=8.5),  # type: ignore[arg-type]
        StoppingSettings(held_out=1.0),
        StoppingSettings(held_out=float("nan")),
        StoppingSettings(patience=0),
    ],
)
def test_invalid_settings_are_rejected(settings: StoppingSettings) -> None:
    with pytest.raises(ValueError, match="early stopping"):
        split_shots(shots(8, total=8), settings)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[FaceMeasures]:
    """Detector answers, one entry per call; nothing is generated."""
    answers: list[FaceMeasures] = []
    monkeypatch.setattr(stopping, "measure_faces", lambda frames: answers.pop(0))
    monkeypatch.setattr(stopping, "render", lambda networks, avatar, landmarks, *, chunk: np.zeros(chunk))
    return answers


def avatar(value: float = 0.0) -> Avatar:
    """On the device, as in a round."""
    return Avatar({"kernel": jnp.full(2, value)}, jnp.full(3, value), {})


def measures(real: FaceMeasures, *, landmark: float, identity: float) -> FaceMeasures:
    """The real faces with every point and every descriptor moved."""
    moved = real.descriptors.copy()
    moved[:, 0] += identity
    return FaceMeasures(real.landmarks + np.float32(landmark), moved)


def test_the_best_avatar_is_kept_and_patience_ends(seen: list[FaceMeasures]) -> None:
    held_out = shots(2, total=2)
    real = FaceMeasures(held_out.landmarks.copy(), np.zeros((2, 128), np.float32))
    moves = [(0.02, 0.4), (0.01, 0.3), (0.02, 0.2), (0.01, 0.3), (0.03, 0.5)]
    seen += [real, *(measures(real, landmark=a, identity=b) for a, b in moves)]
    stopper = Stopper(NETWORKS, held_out, patience=3)
    assert stopper.usable.all()
    avatars = [avatar(float(n)) for n in range(5)]
    stops = [stopper.look(avatar, 10 * n) for n, avatar in enumerate(avatars)]
    np.testing.assert_allclose(stopper.scores, [1.0, 0.625, 0.75, 0.625, 1.375], atol=1e-3)
    assert stopper.best is not None
    np.testing.assert_array_equal(stopper.best.adain, avatars[3].adain, "of two that are equal, the one trained longer")
    assert stopper.best_step == 30
    assert stops == [False, False, False, False, True]


def test_the_best_avatar_is_stored_on_the_host(seen: list[FaceMeasures]) -> None:
    """The first avatar shares the meta weights' generator, which is not copied."""
    held_out = shots(2, total=2)
    real = FaceMeasures(held_out.landmarks.copy(), np.zeros((2, 128), np.float32))
    seen += [real, *(measures(real, landmark=x, identity=x) for x in (0.03, 0.02))]
    stopper, first = Stopper(NETWORKS, held_out, patience=3), avatar()
    stopper.look(first, 0)
    assert stopper.best is not None
    assert stopper.best.generator_params is first.generator_params
    stopper.look(avatar(1.0), 10)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(stopper.best))


def test_lost_faces_are_penalized_and_real_frames_without_a_face_skipped(seen: list[FaceMeasures]) -> None:
    held_out = shots(2, total=2)
    known = held_out.landmarks.copy()
    known[1] = np.nan
    descriptors = np.zeros((2, 128), np.float32)
    descriptors[1] = np.nan
    real = FaceMeasures(known, descriptors)
    first = FaceMeasures(known[:1], np.full((1, 128), 0.01, np.float32))
    lost = FaceMeasures(np.full((1, 68, 2), np.nan, np.float32), np.full((1, 128), np.nan, np.float32))
    seen += [real, first, lost]
    stopper = Stopper(NETWORKS, held_out, patience=1)
    assert stopper.usable.tolist() == [True, False]
    assert not stopper.look(avatar(), 0)
    assert stopper.look(avatar(), 10)
    assert stopper.best_step == 0
