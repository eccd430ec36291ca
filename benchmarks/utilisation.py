"""How long the paper's meta-learning should take on accelerators, by counted arithmetic: `python -m benchmarks.utilisation`.

A model, not a measurement; nothing is compiled or run. Every convolution and matrix product of the traced step takes at least
the greater of its arithmetic at the device's peak and its bytes at the memory's bandwidth. Its bytes are those of its two
operands and its result, each once: what is between (norms, ReLU, resampling, Adam) is taken to be fused into them, which no
compiler does wholly. The sum over all is the roofline bound; `--efficiency` is the share of it that is assumed to be
reached. Gradients are then added up over the devices by a ring, without overlap.

FLOP come from three sides: this count, XLA's own analysis of the program, and the table of layers with a backward pass as two
forward passes (as the paper writes them, resampling not fused). Bytes have two: this count is the least; XLA's, in which every
operation of the program reads and writes memory, is the most. --compile adds its analysis of the program compiled for this
machine's CPU, whose fusions and whose float32 in the place of bfloat16 are not an accelerator's; it takes minutes.
"""

import argparse
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp

from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.models.summary import flop_counts
from th_jax.perceptual.vgg import layer_shapes
from th_jax.training.dry_run import batch_shapes, perceptual_shapes
from th_jax.training.meta_step import make_meta_train_step
from th_jax.training.optimizers import Optimizers
from th_jax.training.programs import MetaPrograms
from th_jax.training.sharding import make_mesh

VIDEOS, EPOCHS = 145_569, 75
"""VoxCeleb2's training videos and the paper's epochs (section 4)."""


class Accelerator(NamedTuple):
    """Published peaks of one device; a second."""

    name: str
    bfloat16_flop: float
    float32_flop: float
    """Of products of float32 numbers at the configs' matmul precision "high": TF32, or three products in bfloat16."""
    memory_bytes: float
    memory_size: int
    link_bytes: float
    """To the other devices, in one direction, up to `linked` of them, and beyond."""
    linked: int
    far_link_bytes: float
    source: str


ACCELERATORS = (
    Accelerator(
        "H100 SXM", 989e12, 494e12, 3.35e12, 80 * 10**9, 450e9, 8, 50e9,
        "NVIDIA's H100 data sheet, dense rates; NVLink within eight, one 400 Gb/s adapter a GPU beyond",
    ),
    Accelerator(
        "TPU v5e", 197e12, 197e12 / 3, 819e9, 16 * 10**9, 200e9, 256, 200e9,
        "cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 16 GB, 819 GB/s, 1,600 Gb/s between chips",
    ),
    Accelerator(
        "TPU v5p", 459e12, 459e12 / 3, 2765e9, 95 * 2**30, 600e9, 6144, 600e9,
        "cloud.google.com/tpu/docs/v5p: 459 TFLOP/s, 95 GiB, 2,765 GB/s, 4,800 Gb/s between chips",
    ),
)  # fmt: skip


class Contraction(NamedTuple):
    """One convolution or matrix product of the traced program."""

    flop: float
    moved: float
    """Bytes of both operands and the result."""
    dtype: Any


def contractions(jaxpr: Any, *, turns: int = 1) -> Iterator[Contraction]:
    """All of a program and of the programs inside of it, each as often as it runs; of branches by platform the default's."""
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            numbers = parameters["dimension_numbers"]
            kernel = equation.invars[1].aval.shape
            taps = prod(kernel) // kernel[numbers.rhs_spec[0]]
            # Zeros between numbers, which a strided convolution's input gradient has, are not multiplied.
            flop = 2.0 * prod(equation.outvars[0].aval.shape) * taps / prod(parameters["lhs_dilation"])
            yield from [_contraction(equation, flop)] * turns
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = prod(shape[axis] for axis in contracted)
            yield from [_contraction(equation, 2.0 * prod(equation.outvars[0].aval.shape) * depth)] * turns
        elif name == "cond":
            yield from contractions(parameters["branches"][-1].jaxpr, turns=turns)
        else:
            inner = turns * parameters.get("length", 1) if name == "scan" else turns
            for below in jax.extend.core.jaxprs_in_params(parameters):
                yield from contractions(below, turns=inner)


def _contraction(equation: Any, flop: float) -> Contraction:
    operands = [v.aval for v in equation.invars]
    arrays = [*operands, equation.outvars[0].aval]
    return Contraction(flop, float(sum(a.size * a.dtype.itemsize for a in arrays)), operands[0].dtype)


def least_seconds(step: list[Contraction], device: Accelerator) -> float:
    """The roofline bound: each contraction's own."""

    def one(work: Contraction) -> float:
        peak = device.bfloat16_flop if work.dtype == jnp.bfloat16 else device.float32_flop
        return max(work.flop / peak, work.moved / device.memory_bytes)

    return sum(map(one, step))


def reduce_seconds(device: Accelerator, *, devices: int, gradient_bytes: float) -> float:
    """A ring over all devices: each sends all gradients nearly twice."""
    link = device.link_bytes if devices <= device.linked else device.far_link_bytes
    return 2 * (devices - 1) / devices * gradient_bytes / link


def nominal_flop(networks: Networks, *, sources: int, frozen: tuple[str, ...]) -> float:
    """The same arithmetic from the table of layers, for one episode: a backward pass counts as two forward passes."""
    forward = flop_counts(networks)
    content = sum(
        2.0 * prod(shape) * (networks.image_size >> (int(layer[5]) - 1)) ** 2
        for network in frozen
        for layer, shape in layer_shapes(network).items()
    )
    return 3 * (sources * forward["E"] + forward["G"] + 5 * forward["D"] + content)


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utilisation")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--base_width", type=int, default=64)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=4, help="episodes a device")
    parser.add_argument("--efficiency", type=float, default=0.4, help="share of the roofline bound that is reached")
    parser.add_argument("--devices", default="1,8,32,128")
    parser.add_argument("--compile", action="store_true", help="add the analysis of the program compiled for the CPU")
    options = parser.parse_args()
    networks = Networks(options.image_size, options.base_width, compute_dtype="bfloat16")
    loss_weights, optimizers, batch_size = LossWeights(), Optimizers(), options.batch_size
    frozen = tuple(loss_weights.content)
    programs = MetaPrograms(networks, optimizers, loss_weights, make_mesh(devices=jax.devices()[:1]), videos=VIDEOS)
    arguments = (
        perceptual_shapes(frozen),
        batch_shapes(episodes=batch_size, sources=options.sources, size=options.image_size, points=IBUG_POINTS),
    )
    step = make_meta_train_step(networks, optimizers, loss_weights)
    counted = list(contractions(jax.make_jaxpr(step)(programs.shapes, *arguments).jaxpr))
    lowered = programs.lowered_step(0, *arguments)
    analyses = {"XLA, lowered": lowered.cost_analysis()}
    if options.compile:
        analyses["XLA, compiled for the CPU"] = lowered.compile().cost_analysis()
    flop = sum(work.flop for work in counted)
    nominal = batch_size * nominal_flop(networks, sources=options.sources, frozen=frozen)
    float32 = sum(work.flop for work in counted if work.dtype != jnp.bfloat16)
    moved = sum(work.moved for work in counted)

    print(f"{options.image_size} px, width {options.base_width}, K {options.sources}, bfloat16, ", end="")
    print(f"{batch_size} episodes a device, {len(counted)} convolutions and products\n")
    xla = [(seen["flops"], seen["bytes accessed"]) for seen in analyses.values()]
    print(f"| a step of a device | counted | table of layers | {' | '.join(analyses)} |\n{'|---' * (3 + len(xla))}|")
    print(f"| TFLOP | {flop / 1e12:.2f} | {nominal / 1e12:.2f} |", *(f"{f / 1e12:.2f} |" for f, _ in xla))
    print(f"| of them on float32 numbers | {float32 / 1e12:.2f} | |", *(" |" for _ in xla))
    print(f"| GB of memory traffic | {moved / 1e9:.1f} | |", *(f"{b / 1e9:.1f} |" for _, b in xla))
    print(f"| FLOP a byte | {flop / moved:.0f} | |", *(f"{f / b:.0f} |" for f, b in xla), end="\n\n")

    weights = programs.shapes.weights
    synthesis, discriminator = (sum(x.size for x in jax.tree.leaves(state.params)) for state in weights)
    gradient_bytes = 4.0 * (synthesis + 2 * discriminator)
    print(f"Gradients added up over the devices: {gradient_bytes / 1e6:.0f} MB a step (two updates of D).\n")
    print(
        "| device | roofline bound | arithmetic alone | step at "
        f"{100 * options.efficiency:.0f} % of the bound | share of the bfloat16 peak |\n{'|---' * 5}|"
    )
    for device in ACCELERATORS:
        least = least_seconds(counted, device)
        taken = least / options.efficiency
        print(
            f"| {device.name} | {least * 1e3:.1f} ms | {flop / device.bfloat16_flop * 1e3:.1f} ms | {taken * 1e3:.0f} ms "
            f"| {100 * flop / device.bfloat16_flop / taken:.0f} % |"
        )
    print(f"\n{VIDEOS:,} videos, {EPOCHS} epochs ({VIDEOS * EPOCHS / 1e6:.1f} million episodes):\n")
    print(f"| device | devices | global batch | a step | episodes/s | days | days at the bound |\n{'|---' * 7}|")
    for device in ACCELERATORS:
        for devices in map(int, options.devices.split(",")):
            sent = reduce_seconds(device, devices=devices, gradient_bytes=gradient_bytes)
            least = least_seconds(counted, device)
            taken = least / options.efficiency + sent
            batch = batch_size * devices
            days, best = (VIDEOS * EPOCHS / batch * s / 86400 for s in (taken, least + sent))
            print(
                f"| {device.name} | {devices} | {batch} | {taken * 1e3:.0f} ms | {batch / taken:,.0f} "
                f"| {days:.2f} | {best:.2f} |"
            )
    print()
    for device in ACCELERATORS:
        print(f"- {device.name}: {device.source}")


if __name__ == "__main__":
    main()
