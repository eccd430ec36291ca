"""One step function for all hardware: 1, 2 and 8 devices and two processes agree; layouts say what they split."""

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from quick_programs import XLA_FLAGS
from tiny_runs import losses, networks, optimizers

from benchmarks.accelerator_programs import exchange_faults
from th_jax.training.dry_run import batch_shapes, perceptual_shapes
from th_jax.training.programs import MetaPrograms
from th_jax.training.sharding import (
    STATE_RULES,
    bytes_on_a_device,
    make_mesh,
    put_batch,
    state_layout,
)

ROOT = Path(__file__).parent.parent.parent


def start(devices: int, *, process: int = 0, processes: int = 1, port: int = 0) -> subprocess.Popen[str]:
    """A program on so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices} {XLA_FLAGS}"
    return subprocess.Popen(
        [sys.executable, "tests/sharded_run.py", str(process), str(processes), f"localhost:{port}"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it saw."""
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err[-3000:]
    seen: dict[str, Any] = json.loads(out.splitlines()[-1])
    return seen


@cache
def on_devices(devices: int) -> dict[str, Any]:
    return result(start(devices))


def assert_agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    for ours, theirs in zip(one["metrics"], other["metrics"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            scale = 1e-5 if name.startswith("loss/") else 1e-4
            np.testing.assert_allclose(ours[name], theirs[name], rtol=scale, atol=1e-6, err_msg=name)


def gflop(line: str) -> float:
    """The arithmetic of a whole step that a dry run describes."""
    return float(re.findall(r"([\d.,]+) GFLOP", line)[0].replace(",", ""))


# Two devices are also those of two processes, below.
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_devices_agree(devices: int) -> None:
    one, many = on_devices(1), on_devices(devices)
    assert (one["devices"], many["devices"]) == (1, devices)
    assert_agree(many, one)
    assert one["traces"] == many["traces"] == 1
    assert many["shard_rows"] * devices == one["shard_rows"] == 256
    assert many["gathers_of_rows"] == 0, "a step must not bring the whole table to every device"
    assert "GFLOP for 8 episodes" in one["arithmetic"]
    assert gflop(many["arithmetic"]) == pytest.approx(gflop(one["arithmetic"]), abs=0.1)
    assert many["donated"] == one["donated"] == 1, "the new state takes the memory of the old one"


def test_devices_exchange_gradients_and_rows_alone() -> None:
    """As docs/accelerators.md requires: no image or activation leaves its device."""
    assert on_devices(1)["collectives"] == {}
    seen = on_devices(8)
    assert exchange_faults(seen["collectives"], devices=8, gradient_bytes=seen["gradient_bytes"]) == []


def test_256_devices_exchange_the_same() -> None:
    """Lowered for devices that are not there, not compiled."""
    mesh = AbstractMesh((256,), ("data",), axis_types=(AxisType.Auto,))
    programs = MetaPrograms(networks(), optimizers("sgd"), losses(), mesh, videos=600)
    perceptual = perceptual_shapes(("vgg16",))

    def batch(episodes: int) -> Any:
        return batch_shapes(episodes=episodes, sources=1, size=16, points=68)

    with pytest.raises(
        ValueError, match="a batch of 300 episodes does not divide over 256 devices: choose a batch_size"
    ):
        programs.lowered_step(0, perceptual, batch(300))
    text = (
        programs.step_at(0).trace(programs.shapes, perceptual, batch(512)).lower(lowering_platforms=("tpu",)).as_text()
    )
    assert "sdy.manual_computation" in text
    kinds = Counter(re.findall(r'"stablehlo\.(all_\w+|reduce_scatter|collective_\w+)"', text))
    leaves = sum(len(jax.tree.leaves(state.params)) for state in programs.shapes.weights)
    of_discriminator = len(jax.tree.leaves(programs.shapes.weights.discriminator.params))
    metrics = 2
    assert kinds == {"all_reduce": leaves + of_discriminator + metrics, "all_gather": 3, "reduce_scatter": 3}
    results = re.findall(r"\}\) : \(tensor<[\dx]*(\w+)>\) -> tensor<[\dx]*\w+>", text)
    assert set(results) <= {"f32", "i32"}


def test_two_processes_agree_with_one() -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    both = [start(1, process=process, processes=2, port=port) for process in range(2)]
    first, second = (result(process) for process in both)
    assert first["devices"] == second["devices"] == 2
    assert first["metrics"] == second["metrics"]
    assert first["fingerprints"] == second["fingerprints"]
    assert_agree(first, on_devices(1))


def test_the_first_rule_that_matches_decides() -> None:
    mesh = make_mesh()
    shapes = {"table": {"rows": np.zeros((256, 4))}, "weights": {"kernel": np.zeros((3, 3))}}
    layout = state_layout(mesh, shapes)
    assert layout["table"]["rows"].spec == PartitionSpec("data")
    assert layout["weights"]["kernel"].spec == PartitionSpec()
    assert STATE_RULES[-1][0] == ".*"


def test_a_leaf_without_a_rule_is_named() -> None:
    with pytest.raises(ValueError, match=r"no rule of the layout matches a/b: add one"):
        state_layout(make_mesh(), {"a": {"b": np.zeros(3)}}, rules=((r"^table/", PartitionSpec()),))


def test_a_scalar_cannot_be_split() -> None:
    with pytest.raises(ValueError, match=r"table/x of shape \[\] does not divide over the 1 devices"):
        state_layout(make_mesh(), {"table": {"x": np.zeros(())}})


def test_bytes_count_each_shard() -> None:
    shapes = {"table": {"rows": np.zeros((256, 4), np.float32)}}
    assert bytes_on_a_device(shapes, state_layout(make_mesh(), shapes)) == 256 * 4 * 4


def test_batches_go_to_the_devices_whole() -> None:
    batch = {"frames": np.arange(12, dtype=np.uint8).reshape(4, 3)}
    placed = put_batch(make_mesh(), batch)
    assert placed["frames"].sharding.spec == PartitionSpec("data")
    np.testing.assert_array_equal(placed["frames"], batch["frames"])
