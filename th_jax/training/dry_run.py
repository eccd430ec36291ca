"""Description of a meta-learning run without running it: parameters, layout, bytes per device and FLOP per step."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np

from th_jax.data.records import data_folder
from th_jax.data.video_list import load_video_list
from th_jax.landmarks.scheme import PUPIL_POINTS
from th_jax.models.summary import parameter_counts
from th_jax.perceptual.frozen import kernel_shapes
from th_jax.storage.tensors import leaf_name
from th_jax.training.programs import MetaPrograms
from th_jax.training.run import steps_of_epochs
from th_jax.training.sharding import bytes_on_a_device
from th_jax.training.views import identity_networks
from th_jax.types import EpisodeBatch


def batch_shapes(*, episodes: int, sources: int, size: int, points: int) -> EpisodeBatch:
    """Return the shapes and dtypes of the global batch, over all hosts.

    Args:
        episodes: episodes per batch, B.
        sources: source frames per episode, K.
        size: side of the square frames in pixels.
        points: landmarks per frame, 68 or 70.
    """
    frame, shape = (size, size, 3), cast(Any, jax.ShapeDtypeStruct)  # shapes take the place of arrays
    return EpisodeBatch(
        source_frames=shape((episodes, sources, *frame), np.dtype(np.uint8)),
        source_landmarks=shape((episodes, sources, points, 2), np.dtype(np.float32)),
        target_frame=shape((episodes, *frame), np.dtype(np.uint8)),
        target_landmarks=shape((episodes, points, 2), np.dtype(np.float32)),
        video_index=shape((episodes,), np.dtype(np.int32)),
    )


def perceptual_shapes(networks: tuple[str, ...]) -> dict[str, Any]:
    """Return the shapes of the frozen networks' weights, whether or not their files exist.

    Args:
        networks: names of the frozen networks.
    """

    def tensor(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.dtype(np.float32))

    return {
        network: {
            layer: {"kernel": tensor(*shape), "bias": tensor(shape[-1])}
            for layer, shape in kernel_shapes(network).items()
        }
        for network in networks
    }


def listed_or_expected(folder: str, split: str, *, expected: int) -> tuple[int, int, str]:
    """Return the number of videos, the number of landmarks and a note about a data set.

    If the data set is missing, the expected number of videos and 70 landmarks are returned, and the note says so; otherwise
    the note is empty.

    Args:
        folder: the data set's folder.
        split: name of the split to count.
        expected: number of videos to assume if the data set is missing.

    Raises:
        ValueError: if the data set is damaged or does not have this split.
    """
    try:
        videos = load_video_list(folder)
    except FileNotFoundError as missing:
        return expected, PUPIL_POINTS, f"{missing}; {expected:,} videos are expected\n"
    return len(videos.entries(split)), videos.points, ""


def describe_config(config: Mapping[str, Any]) -> str:
    """Describe the run that a config of meta-learning stands for; its data may be missing.

    Args:
        config: settings as configs/defaults.py lists them.

    Raises:
        ValueError: if a setting is invalid, or the data set is damaged or does not have this split.
    """
    data, sizes = config["data"], config["episodes"]
    videos, points, note = listed_or_expected(
        data_folder(data["folder"]), data["split"], expected=config["expected_videos"]
    )
    programs = MetaPrograms.from_settings(config, videos=videos)
    batch = batch_shapes(
        episodes=sizes["batch_size"], sources=sizes["sources"], size=programs.networks.image_size, points=points
    )
    steps = config["steps"] or steps_of_epochs(config["epochs"], videos, sizes["batch_size"])
    described = describe_run(programs, batch, perceptual=tuple(config["perceptual"]), steps=steps)
    # Last, where it is seen below the layout of the parameters.
    return f"{described}\n{note or f'data        {videos:,} videos with {points} landmarks'}".rstrip()


def describe_run(programs: MetaPrograms, batch: EpisodeBatch, *, perceptual: tuple[str, ...], steps: int) -> str:
    """Describe a run in a page of text.

    Args:
        programs: compiled steps of this run, bound to its mesh.
        batch: shapes of the global batch, from `batch_shapes`.
        perceptual: names of the frozen networks.
        steps: length of the run in steps.

    Returns:
        Devices, parameters, layout, bytes per device and FLOP per step, as lines of text.
    """
    frozen = perceptual_shapes((*perceptual, *identity_networks(programs.loss_weights)))
    devices = programs.mesh.devices
    lines = [f"devices     {devices.size} x {devices.flat[0].device_kind}, {jax.process_count()} processes", ""]
    counts = parameter_counts(programs.networks)
    lines += [f"parameters  {name:<14}{count:>14,}" for name, count in counts.items()]
    rows = programs.shapes.table.rows
    lines += [
        f"parameters  {'video table':<14}{np.prod(rows.shape):>14,}  ({rows.shape[0]:,} rows)",
        "",
        *_layout(programs),
    ]
    state = bytes_on_a_device(programs.shapes, programs.layout)
    frozen_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(frozen))
    lines += [
        "",
        f"bytes on a device: state {_mebi(state)}, frozen networks {_mebi(frozen_bytes)}; activations come on top",
    ]
    stages = {
        programs.schedule.players(step): step for step in reversed(range(0, max(steps, 1), max(1, steps // 1000)))
    }
    for players, first in sorted(stages.items(), key=lambda item: item[1]):
        analysis = programs.lowered_step(first, frozen, batch).cost_analysis()
        # The program is written for one device, and all of them run it.
        flops = devices.size * analysis["flops"] if analysis else float("nan")
        lines.append(
            f"a step of {' and '.join(players)} (from step {first:,} of {steps:,}): {flops / 1e9:,.1f} GFLOP "
            f"for {batch.video_index.shape[0]} episodes of {batch.source_frames.shape[1]} sources"
        )
    return "\n".join(lines)


def _layout(programs: MetaPrograms) -> list[str]:
    """One line for each group of leaves with the same partition."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)

    def note(path: tuple[Any, ...], leaf: Any, sharding: Any) -> None:
        name = "/".join(leaf_name(path).split("/")[:4])
        groups[name, str(tuple(sharding.spec))].append(int(np.prod(leaf.shape, dtype=np.int64)))

    jax.tree_util.tree_map_with_path(note, programs.shapes, programs.layout)
    return [
        f"layout      {name:<52}{spec:<10} {len(sizes):>4} leaves {sum(sizes):>14,} numbers"
        for (name, spec), sizes in groups.items()
    ]


def _mebi(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
