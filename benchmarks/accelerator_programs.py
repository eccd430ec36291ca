"""What the accelerators' own compilers make of the programs: memory, traffic, collectives, compile time; without a device.

    python -m benchmarks.accelerator_programs compile meta-step --target v5e-4 --episodes 4
    python -m benchmarks.accelerator_programs page

`compile` writes a JSON file to docs/accelerators, `page` makes docs/accelerators.md of all of them. Nothing is run: every
figure is what a compiler said of a program, or counted in its text. `make accelerator-programs` prepares two environments.
"""

import argparse
import datetime
import json
import re
import time
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.accelerator_page import PAGE, RESULTS, page, records
from benchmarks.accelerators import MOST_LOOKUPS, PROGRAMS, TARGETS, VIDEOS, Target, simulated_devices
from benchmarks.program_text import Program, grouped

SHOTS = 8


def summed_bytes(weights: Any, *, discriminator_updates: int = 2) -> int:
    """Return the bytes of gradients that the devices sum in a step."""
    import jax

    synthesis, discriminator = (sum(4 * leaf.size for leaf in jax.tree.leaves(state.params)) for state in weights)
    return synthesis + discriminator_updates * discriminator


def lowered(
    program: str, mesh: Any, *, episodes: int, dtype: str, image_size: int, base_width: int
) -> tuple[Any, Any, int]:
    """Lower a program for the devices of a mesh.

    Args:
        program: a name of `PROGRAMS`.
        mesh: devices, which need not exist.
        episodes: episodes, people or frames on each device.
        dtype: compute dtype.
        image_size, base_width: size of the networks.

    Returns:
        The lowered program, its jaxpr, and the bytes of gradients that the devices must sum.
    """
    import jax

    from configs import voxceleb2
    from th_jax.losses import loss_preset
    from th_jax.models.networks import Networks
    from th_jax.training.dry_run import batch_shapes, perceptual_shapes
    from th_jax.training.optimizers import AdversarySchedule, Optimizers
    from th_jax.training.programs import MetaPrograms

    config = voxceleb2.get_config()
    config.networks.update({"compute_dtype": dtype, "image_size": image_size, "base_width": base_width})
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    networks, losses = Networks.from_settings(config.networks), loss_preset(**config.losses)
    perceptual = perceptual_shapes(tuple(config.perceptual))
    if program == "finetune-round":
        return *_finetune_round(networks, losses, perceptual, mesh, people=episodes), 0
    if program == "generate":
        return *_generate(networks, mesh, frames=episodes), 0
    batch_size = episodes * mesh.size
    programs = MetaPrograms(
        networks,
        Optimizers.from_settings(config.optimizers).for_batch(batch_size, rule=config.batch_rule),
        losses,
        mesh,
        videos=VIDEOS,
        schedule=AdversarySchedule.from_settings(config.adversary),
        step=config.step,
    )
    batch = batch_shapes(episodes=batch_size, sources=config.episodes.sources, size=image_size, points=70)
    jaxpr = jax.make_jaxpr(programs.step_at(0))(programs.shapes, perceptual, batch).jaxpr
    return (
        programs.lowered_step(0, perceptual, batch),
        jaxpr,
        summed_bytes(programs.shapes.weights, discriminator_updates=config.step.discriminator_updates),
    )


def _finetune_round(networks: Any, losses: Any, perceptual: Any, mesh: Any, *, people: int) -> tuple[Any, Any]:
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from th_jax.training.finetune import make_finetune_chunk, start_finetune
    from th_jax.training.finetune_people import CHUNK_STEPS
    from th_jax.training.optimizers import Optimizers
    from th_jax.training.sharding import DATA_AXIS
    from th_jax.types import Shots

    optimizers, size, shape = Optimizers(), networks.image_size, jax.ShapeDtypeStruct
    one_chunk = make_finetune_chunk(networks, losses, optimizers, steps=CHUNK_STEPS)
    one: Any = Shots(
        shape((SHOTS, size, size, 3), np.uint8), shape((SHOTS, 70, 2), np.float32), shape((SHOTS,), np.float32)
    )
    state = jax.eval_shape(
        lambda weights, shots, key: start_finetune(networks, weights, shots, optimizers=optimizers, key=key),
        networks.shapes(), one, jax.eval_shape(lambda: jax.random.key(0)),
    )  # fmt: skip
    count = people * mesh.size
    states, shots = jax.tree.map(lambda leaf: shape((count, *leaf.shape), leaf.dtype), (state, one))
    split, whole = NamedSharding(mesh, PartitionSpec(DATA_AXIS)), NamedSharding(mesh, PartitionSpec())

    def chunk(states: Any, perceptual: Any, shots: Any, ends: Any) -> Any:
        return jax.lax.map(lambda person: one_chunk(person[0], perceptual, *person[1:]), (states, shots, ends))

    mapped = jax.shard_map(
        chunk,
        mesh=mesh,
        in_specs=(split.spec, whole.spec, split.spec, split.spec),
        out_specs=split.spec,
        check_vma=False,
    )
    step = jax.jit(mapped, donate_argnums=0, in_shardings=(split, whole, split, split), out_shardings=split)
    arguments = (states, perceptual, shots, shape((count,), np.int32))
    return step.lower(*arguments), jax.make_jaxpr(step)(*arguments).jaxpr


def _generate(networks: Any, mesh: Any, *, frames: int) -> tuple[Any, Any]:
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from th_jax.models.networks import group
    from th_jax.render import generate_frames
    from th_jax.training.sharding import DATA_AXIS
    from th_jax.types import Avatar

    generator = group(networks.shapes().synthesis, "generator")
    avatar: Any = Avatar(
        generator.params, jax.ShapeDtypeStruct((networks.plan.adain_size,), np.float32), generator.spectral_stats
    )
    split, whole = NamedSharding(mesh, PartitionSpec(DATA_AXIS)), NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        lambda avatar, points: generate_frames(networks, avatar, points),
        in_shardings=(whole, split),
        out_shardings=split,
    )
    arguments = (avatar, jax.ShapeDtypeStruct((frames * mesh.size, 70, 2), np.float32))
    return step.lower(*arguments), jax.make_jaxpr(step)(*arguments).jaxpr


def flop_by_dtype(jaxpr: Any, platform: str, *, turns: int = 1, shared: int = 1) -> dict[str, float]:
    """Count the arithmetic of a traced program's convolutions and matrix products on one device, by element type.

    Args:
        jaxpr: the program.
        platform: of branches by platform, the one that is counted.
        turns: how often the program runs.
        shared: devices that the arrays of this program are divided over.
    """
    import jax.extend

    total: dict[str, float] = {}
    live = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if not any(id(variable) in live for variable in equation.outvars):
            continue  # its result is unused, and every compiler removes it
        live |= {id(variable) for variable in equation.invars}
        name, parameters = equation.primitive.name, equation.params
        found: dict[str, float] = {}
        if name == "conv_general_dilated":
            numbers = parameters["dimension_numbers"]
            kernel = equation.invars[1].aval.shape
            taps = prod(kernel) // kernel[numbers.rhs_spec[0]]
            # Zeros between numbers, which a strided convolution's input gradient has, are not multiplied.
            flop = 2.0 * prod(equation.outvars[0].aval.shape) * taps / prod(parameters["lhs_dilation"])
            found[str(equation.invars[0].aval.dtype)] = turns * flop / shared
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = prod(shape[axis] for axis in contracted)
            flop = 2.0 * prod(equation.outvars[0].aval.shape) * depth
            found[str(equation.invars[0].aval.dtype)] = turns * flop / shared
        elif name == "cond" and parameters.get("branches_platforms"):
            names = [platforms or (platform,) for platforms in parameters["branches_platforms"]]
            chosen = next(i for i, platforms in enumerate(names) if platform in platforms)
            found = flop_by_dtype(parameters["branches"][chosen].jaxpr, platform, turns=turns, shared=shared)
        elif name == "cond":  # the branch that does the work
            branches = [flop_by_dtype(b.jaxpr, platform, turns=turns, shared=shared) for b in parameters["branches"]]
            found = max(branches, key=lambda branch: sum(branch.values()))
        else:
            inner = turns * parameters.get("length", 1) if name == "scan" else turns
            for below in jax.extend.core.jaxprs_in_params(parameters):
                parts = flop_by_dtype(below, platform, turns=inner, shared=1 if name == "shard_map" else shared)
                for dtype, flop in parts.items():
                    found[dtype] = found.get(dtype, 0.0) + flop
        for dtype, flop in found.items():
            total[dtype] = total.get(dtype, 0.0) + flop
    return total


def compiled_record(lowered: Any, *, gradient_bytes: int) -> tuple[dict[str, Any], str]:
    """Compile a lowered program, and return what the compiler and the text say, and the text."""
    processor, start = time.process_time(), time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:  # the compiler's own refusal is a result
        found = re.search(r"Used [\d.]+\w of [\d.]+\w hbm|[^\n]*RESOURCE_EXHAUSTED[^\n]*", str(error))
        return {"refused": found[0] if found else str(error).splitlines()[0]}, ""
    seconds = {
        "compile_cpu_seconds": round(time.process_time() - processor),
        "compile_seconds": round(time.perf_counter() - start),
    }
    return seconds | text_record(compiled, gradient_bytes=gradient_bytes), compiled.as_text()


def text_record(compiled: Any, *, gradient_bytes: int) -> dict[str, Any]:
    """Return what a compiled program says of itself."""
    memory = compiled.memory_analysis()
    program = Program(compiled.as_text())
    traffic = program.traffic()
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    cost = compiled.cost_analysis() or {}
    return {
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "results": memory.output_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "peak": taken + memory.temp_size_in_bytes,
        },
        "compiler_flop": cost.get("flops"),
        "compiler_bytes": cost.get("bytes accessed"),
        "traffic": traffic,
        "copies": program.copies(),
        "instructions": sum(1 for _ in program.running()),
        "collectives": grouped(program.collectives()),
        "gradient_bytes": gradient_bytes,
    }


def exchange_faults(groups: dict[str, dict[str, int]], *, devices: int, gradient_bytes: int) -> list[str]:
    """Say what is wrong with the exchanges between devices.

    Args:
        groups: from `benchmarks.program_text.grouped`.
        devices: number of devices that exchange.
        gradient_bytes: bytes of the gradients that they sum.
    """
    found = []
    exchanges = {tuple(name.split()): group for name, group in groups.items()}
    if moved := {kind for kind, _ in exchanges} - {"all-reduce", "all-gather", "reduce-scatter"}:
        found.append(f"exchanges activations: {', '.join(sorted(moved))}")
    if other := {dtypes for kind, dtypes in exchanges if kind == "all-reduce"} - {"f32", "s32"}:
        found.append(f"sums in {', '.join(sorted(other))}")
    summed = groups.get("all-reduce f32", {"bytes": 0})["bytes"]
    if devices > 1 and abs(summed - gradient_bytes) > 0.05 * gradient_bytes:
        found.append(f"sums {summed / 1e6:.1f} MB in float32 where gradients have {gradient_bytes / 1e6:.1f} MB")
    lookups = [group for exchange, group in exchanges.items() if exchange != ("all-reduce", "f32")]
    count, size = (sum(group[number] for group in lookups) for number in ("count", "bytes"))
    if count > MOST_LOOKUPS:
        found.append(f"looks up and updates W in {count} exchanges, more than {MOST_LOOKUPS}")
    if size > 0.02 * gradient_bytes and devices > 1:
        found.append(f"looks up and updates W with {size / 1e6:.1f} MB, more than 2 % of the gradients")
    return found


def unmet(record: dict[str, Any]) -> list[str]:
    """Say in which points a compiled program is not what it should be; nothing if it is."""
    if "refused" in record:
        return [f"does not compile: {record['refused']}"]
    found = exchange_faults(record["collectives"], devices=record["devices"], gradient_bytes=record["gradient_bytes"])
    memory, capacity = record["memory"], TARGETS[record["target"]].accelerator.memory_size
    if memory["peak"] > 0.9 * capacity:
        found.append(f"takes {memory['peak'] / 2**30:.1f} GiB of {capacity / 2**30:.0f}")
    if record["program"] != "generate" and memory["aliased"] < 0.95 * memory["results"]:
        found.append("does not reuse the memory of the old state")
    return found


def compile_one(options: argparse.Namespace) -> None:
    """Compile a program and write its record."""
    target = TARGETS[options.target]
    devices = simulated_devices(target)

    from th_jax.training.sharding import make_mesh

    mesh = make_mesh(devices=devices)
    low, jaxpr, gradient_bytes = lowered(
        options.program, mesh, episodes=options.episodes, dtype=options.dtype,
        image_size=options.image_size, base_width=options.base_width,
    )  # fmt: skip
    flop = flop_by_dtype(jaxpr, target.platform, shared=mesh.size)
    record, text = compiled_record(low, gradient_bytes=gradient_bytes)
    record = {
        "program": options.program,
        "target": options.target,
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "dtype": options.dtype,
        "episodes": options.episodes,
        "image_size": options.image_size,
        "base_width": options.base_width,
        "versions": _versions(target),
        "date": datetime.date.today().isoformat(),
        "flop": flop,
        **record,
    }
    record["unmet"] = unmet(record)
    if options.text:
        Path(options.text).write_text(text)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{options.program}_{options.target}_{options.dtype}_{options.episodes}.json"
    (folder / name).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def _versions(target: Target) -> dict[str, str]:
    names = ("jax", "libtpu") if target.platform == "tpu" else ("jax", "jax-cuda12-plugin", "nvidia-cudnn-cu12")
    return {name: metadata.version(name) for name in names}


def main() -> None:
    """Compile a program, or write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator_programs")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("compile", help="compile a program and write its JSON file")
    one.add_argument("program", choices=PROGRAMS)
    one.add_argument("--target", choices=TARGETS, required=True)
    one.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    one.add_argument("--episodes", type=int, default=4, help="episodes, people or frames on each device")
    one.add_argument("--image-size", type=int, default=256)
    one.add_argument("--base-width", type=int, default=64)
    one.add_argument("--out", default=str(RESULTS))
    one.add_argument("--text", help="file for the compiled text")
    commands.add_parser("page", help="write docs/accelerators.md")
    options = parser.parse_args()
    if options.command == "page":
        PAGE.write_text(page(records()))
    else:
        compile_one(options)


if __name__ == "__main__":
    main()
