"""Distills a face network's identity features of a data set into E (`th_jax.training.teach`): data, steps, report."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, UInt8

from th_jax.data import Episodes, VideoRecords, decode_frame
from th_jax.images import to_network_range
from th_jax.models.networks import group
from th_jax.perceptual.face_features import FaceNetWeights
from th_jax.perceptual.frozen import FACE_MOBILENET, load_perceptual
from th_jax.training.teach import (
    COMPONENTS,
    TargetBasis,
    Teaching,
    check_teachable,
    frame_features,
    make_teach_step,
    predicted_cosine,
    start_teaching,
    taught_weights,
)
from th_jax.types import AnyArray, MetaWeights, NetworkState
from th_jax.weights import MetaModel

PEOPLE, SOURCES = 16, 4
"""People of a step, and frames of each."""

FRAMES_OF_A_TARGET = 8
"""Frames over which a person's features are averaged, evenly spaced."""

FIRST_PEOPLE = 512
"""People to whose embeddings the first linear map is fitted."""

REPORT_EVERY = 100
"""Steps between two lines of the report."""


def teach(
    meta: MetaModel,
    folder: str,
    *,
    steps: int = 2500,
    learning_rate: float = 1e-3,
    components: int = COMPONENTS,
    seed: int = 0,
    on_message: Callable[[str], None] = print,
) -> MetaWeights:
    """Teach E on the split "train", and report how well it does on the split "heldout".

    Args:
        meta: the weights to begin with.
        folder: data set with true landmarks.
        steps: number of steps.
        learning_rate: rate of Adam at the first step; it falls to 0 with the cosine of the progress.
        components: number of the identity targets (`TargetBasis.of`).
        seed: seed of the episodes.
        on_message: called every 100 steps with the mean cosine between targets and predictions from single frames: of people
            that E learns from, and of held-out people, in other frames than those that their targets come from.

    Returns:
        The weights with the taught E and its P.

    Raises:
        ValueError: if a number is out of range, P has spectral norm, or the data set has too few people, no held-out ones or
            no true landmarks; nothing was computed.
        WeightsError: if the weights of the face MobileNet are not installed.
    """
    if steps < 1 or not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"steps must be at least 1 and learning_rate above 0, got {steps} and {learning_rate}")
    networks, original = meta.networks, group(meta.weights.synthesis, "embedder")
    check_teachable(networks)
    records, heldout = (VideoRecords(folder, split) for split in ("train", "heldout"))
    lessons = Episodes(
        records, image_size=networks.image_size, batch_size=PEOPLE, sources=SOURCES, seed=seed, landmarks="true",
        flip=True, color_jitter=0.1, crop_scale=0.2, crop_shift=0.1,
    )  # fmt: skip
    if not 1 <= components < len(records):
        raise ValueError(
            f"components must be 1 to {len(records) - 1}, one less than the people of {records!r}, got {components}"
        )
    if not len(heldout):
        raise ValueError(f"{heldout!r} is empty: held-out people show whether E learns or memorizes")
    face_network = load_perceptual([FACE_MOBILENET])[FACE_MOBILENET]

    @jax.jit
    def embed(embedder: NetworkState, frames: AnyArray, points: AnyArray) -> Array:
        drawn = networks.landmark_image(jnp.asarray(points))
        return networks.embed(embedder, to_network_range(jnp.asarray(frames)), drawn)

    @jax.jit
    def mean_features(face_network: FaceNetWeights, frames: AnyArray, points: AnyArray) -> Array:
        return jnp.mean(
            frame_features(face_network, to_network_range(jnp.asarray(frames)), jnp.asarray(points)), axis=0
        )

    features, first = [], []
    for number in range(len(records)):
        person = _frames_of(records, number, networks.image_size, frames=FRAMES_OF_A_TARGET)
        features.append(np.asarray(mean_features(face_network, *person)))
        if number < FIRST_PEOPLE:
            first.append(np.asarray(embed(original, *person)))
    basis = TargetBasis.of(np.stack(features), components=components)
    targets = basis.targets(np.stack(features))
    # Held-out people are judged by other frames than those that their targets come from.
    others = [
        _frames_of(heldout, number, networks.image_size, frames=2 * FRAMES_OF_A_TARGET)
        for number in range(len(heldout))
    ]
    seen, judging = ([[part[start::2] for part in person] for person in others] for start in (0, 1))
    expected = basis.targets(np.stack([np.asarray(mean_features(face_network, *person)) for person in judging]))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps), b1=0.9, b2=0.99, eps=1e-6)
    state = start_teaching(
        networks, meta.weights, optimizer,
        embeddings=np.concatenate(first), targets=np.repeat(targets[: len(first)], FRAMES_OF_A_TARGET, axis=0),
    )  # fmt: skip

    def held_out(state: Teaching) -> float:
        now = NetworkState(state.params["embedder"], state.spectral_stats)
        frames = np.concatenate([np.asarray(embed(now, *person)) for person in seen])
        return float(np.mean(predicted_cosine(state, frames, np.repeat(expected, FRAMES_OF_A_TARGET, axis=0))))

    on_message(f"step 0: held-out cosine {held_out(state):.3f}")
    step = jax.jit(make_teach_step(networks, optimizer), donate_argnums=0)
    of_index = {index: number for number, index in enumerate(records.video_indices)}
    since: list[dict[str, float]] = []
    for done, batch in enumerate(lessons.iterate(stop_step=steps), 1):
        wanted = targets[[of_index[int(index)] for index in batch.video_index]]
        state, metrics = step(state, original, batch.source_frames, batch.source_landmarks, wanted)
        since.append({name: float(value) for name, value in metrics.items()})
        if done % REPORT_EVERY == 0 or done == steps:
            cosine, error = (np.mean([each[name] for each in since]) for name in ("cosine", "reconstruction"))
            held = held_out(state)
            on_message(f"step {done}: cosine {cosine:.3f}, held-out {held:.3f}; reconstruction error {error:.4f}")
            since.clear()
    return taught_weights(meta.weights, state)


def _frames_of(
    records: VideoRecords, number: int, size: int, *, frames: int
) -> tuple[UInt8[np.ndarray, "F H W 3"], Float[np.ndarray, "F P 2"]]:
    """Decode evenly spaced frames of a person, some of them repeated if there are fewer."""
    record = records.read(number)
    assert record.true_landmarks is not None, "the episodes' settings said that all records have true landmarks"
    chosen = np.linspace(0, len(record.frames) - 1, frames).round().astype(int)
    return np.stack([decode_frame(record.frames[t], size=size) for t in chosen]), record.true_landmarks[chosen]
