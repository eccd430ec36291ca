"""Checkpoints restore bit-exactly onto any number of devices, independent of the saving mesh."""

import os
import subprocess
import sys
from pathlib import Path

from checkpoint_states import ABOUT, assert_same_bits, shapes_of, state_of

from th_jax.storage.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent.parent


START = """
import sys
import jax
from checkpoint_states import ABOUT, assert_same_bits, shapes_of, state_of
from th_jax.storage import checkpoint_format as checkpoint_description
from th_jax.storage.checkpoints import Checkpoints

checkpoint_description._SMALL = -1  # fingerprints on the devices
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
state = state_of(3)
"""
SAVE = """
layout = jax.tree.map(lambda x: everywhere, state)._replace(table=by_row)
with Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(3, jax.device_put(state, layout), description=ABOUT)
"""
RESTORE = """
shapes = shapes_of(state, everywhere)._replace(table=shapes_of(state.table, by_row))
for folder in sys.argv[2:]:
    with Checkpoints(folder, read_only=True) as checkpoints:
        came, _ = checkpoints.restore(shapes)
    assert_same_bits(came, state)
    assert came.table.sharding == by_row and len(came.table.addressable_shards) == jax.device_count()
"""


def run_on(devices: int, code: str, *arguments: object) -> None:
    """Run code after START in a process with the given number of simulated devices."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    result = subprocess.run(
        [sys.executable, "-c", START + code, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr


def test_other_numbers_of_devices(tmp_path: Path) -> None:
    one, two, eight = (tmp_path / name for name in ("one", "two", "eight"))
    with Checkpoints(one) as checkpoints:
        checkpoints.save(3, state_of(3), description=ABOUT)
    run_on(8, SAVE + RESTORE, eight, one)
    run_on(2, SAVE + RESTORE, two, one, eight)
    with Checkpoints(two) as of_two, Checkpoints(eight) as of_eight:
        assert of_two.describe()["leaves"] == of_eight.describe()["leaves"], "a fingerprint depends on the mesh"
        for checkpoints in (of_two, of_eight):
            assert_same_bits(checkpoints.restore(shapes_of(state_of(0)))[0], state_of(3))
