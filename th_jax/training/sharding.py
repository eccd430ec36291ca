"""Placement of a run's arrays on devices: the mesh, rules from leaf names to partitions, and the compiled step."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from th_jax.storage.tensors import leaf_name

DATA_AXIS = "data"

AnyMesh = Mesh | AbstractMesh
"""A mesh of devices, or of numbers of devices, for which programs can be lowered."""

STATE_RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"^table/.*", PartitionSpec(DATA_AXIS)),
    (r".*", PartitionSpec()),
)
"""Rules from leaf names to partitions; the first matching pattern applies. W and its moments are split by row; everything
else, 0.3 GB in float32 at paper size, is replicated on every device."""

BATCH_SPEC = PartitionSpec(DATA_AXIS)


def make_mesh(*, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Create a mesh with one data axis over all devices of all processes, or over the given devices."""
    chosen = list(devices) if devices is not None else jax.devices()
    return jax.make_mesh((len(chosen),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def step_axis(mesh: AnyMesh) -> str | None:
    """Return the `axis_name` of a step for this mesh: None for a single device, which has nothing to exchange."""
    return DATA_AXIS if mesh.size > 1 else None


def state_layout(mesh: AnyMesh, shapes: Any, *, rules: Sequence[tuple[str, PartitionSpec]] = STATE_RULES) -> Any:
    """Determine a NamedSharding for every leaf of a state.

    Args:
        mesh: mesh from `make_mesh`.
        shapes: the state's tree, of arrays or of shapes.
        rules: pairs of a pattern and a partition; the first match applies.

    Raises:
        ValueError: if no rule matches a leaf, or a partition does not divide it.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        for pattern, spec in rules:
            if re.match(pattern, name):
                _check_divides(name, leaf.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        raise ValueError(f"no rule of the layout matches {name}: add one, or end the rules with the pattern .*")

    return jax.tree_util.tree_map_with_path(place, shapes)


def with_layout(shapes: Any, layout: Any) -> Any:
    """Attach shardings to shapes, as needed to restore a checkpoint."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes, layout
    )


def put_state(state: Any, layout: Any) -> Any:
    """Place a state according to a layout.

    Leaves that are already in place are kept; all other leaves must be equal on every process.
    """
    return jax.tree.map(_put_whole, state, layout)


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """Assemble the global batch from the part that each process read, split over the data axis.

    Raises:
        ValueError: if the number of episodes does not divide by the devices of this process.
    """
    sharding = NamedSharding(mesh, BATCH_SPEC)
    local = len([device for device in mesh.devices.flat if device.process_index == jax.process_index()])
    episodes = len(jax.tree.leaves(batch)[0])
    if episodes % local:
        raise ValueError(
            f"{episodes} episodes of this process do not divide over its {local} devices: "
            f"choose a batch_size that is a multiple of {mesh.size}"
        )
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def compile_step(step: Callable[..., Any], mesh: AnyMesh, layout: Any) -> Callable[..., Any]:
    """Jit `step(state, frozen, batch) -> (state, metrics)` for a mesh; the old state is donated.

    On several devices the step runs within `shard_map`, on each device's own part of state and batch, and must be built with
    `axis_name=step_axis(mesh)`. It refers to no device: the same function runs on one CPU and on a pod.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    if step_axis(mesh) is not None:
        parts = jax.tree.map(lambda sharding: sharding.spec, layout)
        step = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(parts, PartitionSpec(), BATCH_SPEC),
            out_specs=(parts, PartitionSpec()),
            check_vma=False,
        )
    return jax.jit(
        step,
        in_shardings=(layout, whole, NamedSharding(mesh, BATCH_SPEC)),
        out_shardings=(layout, whole),
        donate_argnums=0,
    )


def bytes_on_a_device(shapes: Any, layout: Any) -> int:
    """Return the memory of a state on each device, in bytes."""
    sizes = jax.tree.map(
        lambda shape, sharding: int(np.prod(sharding.shard_shape(shape.shape), dtype=np.int64)) * shape.dtype.itemsize,
        shapes,
        layout,
    )
    return sum(jax.tree.leaves(sizes))


def _put_whole(value: Array | np.ndarray, sharding: NamedSharding) -> Array:
    if isinstance(value, Array) and value.sharding == sharding:
        return value
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _check_divides(name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: AnyMesh) -> None:
    for dimension, axis in enumerate(spec):
        if axis is None:
            continue
        if dimension >= len(shape) or shape[dimension] % mesh.shape[axis]:
            raise ValueError(
                f"{name} of shape {list(shape)} does not divide over the {mesh.shape[axis]} devices of axis {axis!r}"
            )
