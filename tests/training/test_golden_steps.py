"""Two whole steps of each training against golden arrays that an independent rendering in PyTorch made, dense and in float64.

With pixel loss, landmark box, ramp, warm-up, halvings, averaging, duplicates in the batch and padded shots. How far
float32 may lie from float64 stands beside each array.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tiny_runs import networks

from tests.golden import step_cases as cases
from tests.golden.compare import nested
from tests.golden.seeded import GOLDEN
from th_jax.losses import LossWeights
from th_jax.perceptual import vgg
from th_jax.training.finetune import make_finetune_step, start_finetune
from th_jax.training.meta_step import make_meta_train_step
from th_jax.training.optimizers import AdamSettings, AdversarySchedule, Optimizers
from th_jax.training.state import VideoTable, start_from
from th_jax.types import EpisodeBatch, MetaWeights, NetworkState, Shots

SLACK = 4.0
"""Times the largest distance of sixteen float32 runs of PyTorch from float64."""

LAST_PLACES = 16 * 2.0**-23
"""Of an array's largest number: sums of thousands of numbers may be taken in another order than in any of these runs."""

OPTIMIZERS = Optimizers(AdamSettings(**cases.SYNTHESIS), AdamSettings(**cases.DISCRIMINATOR), cases.AVERAGING)
LOSSES = LossWeights(**cases.LOSSES)


@pytest.fixture(scope="module")
def vgg16() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "CHANNELS", cases.VGG_CHANNELS)
        yield {"vgg16": nested({path: jnp.asarray(value) for path, value in cases.perceptual().items()})}


def weights() -> MetaWeights:
    params = cases.parameters()
    stats = cases.stats(params)

    def both(name: str) -> NetworkState:
        return NetworkState(*(nested(jax.tree.map(jnp.asarray, tree[name])) for tree in (params, stats)))

    synthesis = {name: both(name) for name in ("embedder", "projection", "generator")}
    return MetaWeights(
        NetworkState(
            {name: state.params for name, state in synthesis.items()},
            {name: state.spectral_stats for name, state in synthesis.items()},
        ),
        both("discriminator"),
    )


def left(**states: NetworkState) -> dict[str, Any]:
    """Parameters, u and v under the names of the golden arrays."""
    params = {name: state.params for name, state in states.items()}
    stats = {name: state.spectral_stats for name, state in states.items()}
    return flatten_dict({"params": params, "stats": stats}, sep="/")


def assert_golden_step(name: str, found: Mapping[str, Any]) -> None:
    """Every array that is stored was found, as near as float32 comes."""
    with np.load(GOLDEN / f"{cases.FILE}.npz", allow_pickle=False) as arrays:
        stored = {path.removeprefix(f"{name}/"): arrays[path] for path in arrays.files if path.startswith(f"{name}/")}
    floors = dict(zip(sorted(set(stored) - {"floors"}), stored.pop("floors"), strict=True))
    assert len(stored) > 50
    wrong = {}
    for path, wanted in stored.items():
        value = np.asarray(found[path], np.float64).reshape(-1)
        value = value[cases.chosen(f"{name}/{path}", value.size)]
        allowed = SLACK * floors[path] + LAST_PLACES * np.abs(wanted).max()
        if not (difference := np.abs(value - wanted).max()) <= allowed:
            wrong[path] = f"off by {difference:.1e} of an allowed {allowed:.1e}"
    assert wrong == {}


def test_meta_learning(vgg16: dict[str, Any]) -> None:
    table = VideoTable(jnp.asarray(cases.rows()), jnp.zeros(cases.rows().shape), jnp.zeros(cases.ROWS, jnp.int32))
    state = start_from(OPTIMIZERS, weights(), table)
    schedule = AdversarySchedule(ramp_steps=cases.RAMP_STEPS)
    step = jax.jit(make_meta_train_step(networks(), OPTIMIZERS, LOSSES, schedule=schedule))
    found: dict[str, Any] = {}
    for number, index in enumerate(cases.VIDEO_INDEX):
        batch = EpisodeBatch(*cases.sources(number), *cases.targets(number), np.array(index, np.int32))
        state, metrics = step(state, vgg16, batch)
        found |= {f"metric/{number}/{name}": value for name, value in metrics.items()}
    synthesis = state.weights.synthesis
    networks_left = {
        name: NetworkState(synthesis.params[name], synthesis.spectral_stats[name]) for name in synthesis.params
    }
    found |= left(**networks_left, discriminator=state.weights.discriminator)
    found |= flatten_dict({"averaged": state.averaged.params}, sep="/")
    found["rows"] = state.table.rows
    # A row that was not visited keeps its second moment until its next visit.
    late = jnp.power(cases.DISCRIMINATOR["beta2"], state.discriminator_updates - state.table.last_update)
    found["rows_second_moment"] = state.table.second_moment * late[:, None]
    assert_golden_step("meta", found)


def test_fine_tuning(vgg16: dict[str, Any]) -> None:
    mask = (np.arange(cases.PADDED_SHOTS) < cases.REAL_SHOTS).astype(np.float32)
    shots = Shots(*cases.shots(), mask)
    state = start_finetune(networks(), weights(), shots, optimizers=OPTIMIZERS, key=jax.random.key(0))
    found: dict[str, Any] = {"start/adain": state.adain}
    step = jax.jit(make_finetune_step(networks(), LOSSES, OPTIMIZERS, adversary=cases.FINETUNE_ADVERSARY))
    for number in range(cases.STEPS):
        state, metrics = step(state, vgg16, shots)
        found |= {f"metric/{number}/{name}": value for name, value in metrics.items()}
    found |= left(generator=state.generator, discriminator=state.discriminator) | {"adain": state.adain}
    assert_golden_step("finetune", found)
