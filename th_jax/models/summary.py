"""Summary of the four networks: layers, parameters and arithmetic."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from th_jax.models.layers import SelfAttention, SpectralConv, SpectralDense
from th_jax.models.networks import Networks


class Layer(NamedTuple):
    """One convolution or dense layer of a network, as in the paper (resampling not fused)."""

    network: str
    name: str
    output: tuple[int, ...]
    parameters: int
    flop: int
    """Multiplications and additions for one frame; a convolution before pooling is counted at the full resolution."""


def layers(networks: Networks) -> list[Layer]:
    """List every layer of E, G, P and D in the order of execution, without computing anything."""
    found: list[Layer] = []

    def record(calls: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result = calls(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and isinstance(module, SpectralConv | SpectralDense | SelfAttention):
            found.append(_layer(module, args[0].shape, result.shape))
        return result

    size, plan = networks.image_size, networks.plan
    picture = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    seen = jax.ShapeDtypeStruct((1, networks.embedder_side, networks.embedder_side, 3), jnp.float32)
    embedding = jax.ShapeDtypeStruct((1, plan.embedding), jnp.float32)
    adain = jax.ShapeDtypeStruct((1, plan.adain_size), jnp.float32)
    calls = (
        ("E", networks.embedder, (seen, seen)),
        ("G", networks.generator, (picture, adain)),
        ("P", networks.projection, (embedding,)),
        ("D", networks.discriminator, (picture, picture, embedding)),
    )
    table: list[Layer] = []
    for name, module, arguments in calls:
        found.clear()
        with nn.intercept_methods(record):
            jax.eval_shape(module.init, jax.random.key(0), *arguments)
        table += [layer._replace(network=name) for layer in found]
    return table


def parameter_counts(networks: Networks) -> dict[str, int]:
    """Count the parameters of "embedder", "projection", "generator" and "discriminator", without the video table W."""
    shapes = networks.shapes()
    trees = {**shapes.synthesis.params, "discriminator": shapes.discriminator.params}
    return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in trees.items()}


def flop_counts(networks: Networks) -> dict[str, float]:
    """Count the arithmetic of one forward pass of one frame, in FLOP, for E, G (with P) and D."""
    totals = {"E": 0.0, "G": 0.0, "D": 0.0}
    for layer in layers(networks):
        totals["G" if layer.network == "P" else layer.network] += layer.flop
    return totals


def millions(count: int) -> str:
    """Format a parameter count, as in "14.9 M"."""
    return f"{count / 1e6:.1f} M"


def table_lines(networks: Networks) -> Iterator[str]:
    """Yield the lines of the printed table."""
    yield f"{'':3}{'layer':32}{'output':>18}{'parameters':>14}{'GFLOP':>10}"
    for layer in layers(networks):
        shape = "x".join(map(str, layer.output))
        yield f"{layer.network:3}{layer.name:32}{shape:>18}{layer.parameters:>14,}{layer.flop / 1e9:>10.2f}"
    counts, flop = parameter_counts(networks), flop_counts(networks)
    yield ""
    yield f"{'network':30}{'parameters':>14}{'GFLOP/frame':>16}"
    rows = (
        ("E, embedder", counts["embedder"], flop["E"]),
        ("G with P, generator", counts["generator"] + counts["projection"], flop["G"]),
        ("  of which P, projection", counts["projection"], None),
        ("D without W, discriminator", counts["discriminator"], flop["D"]),
    )
    for name, parameters, operations in rows:
        yield f"{name:30}{millions(parameters):>14}" + (f"{operations / 1e9:>16.1f}" if operations is not None else "")
    yield f"AdaIN parameters of one person: {networks.plan.adain_size:,}"


def _layer(module: nn.Module, incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> Layer:
    name = "/".join(module.path)
    if isinstance(module, SelfAttention):  # its convolutions have their own rows; these are its two products
        _, height, width, channels = incoming
        positions = height * width
        flop = 2 * positions * (positions // 4) * (channels // 8 + channels // 2)
        return Layer("", f"{name} (products, gamma)", outgoing[1:], 1, flop)
    inputs = incoming[-1]
    if isinstance(module, SpectralDense):
        return Layer("", name, outgoing[1:], (inputs + 1) * outgoing[-1], 2 * inputs * outgoing[-1])
    kernel = module.size**2 * inputs * outgoing[-1]
    positions = max(incoming[1] * incoming[2], outgoing[1] * outgoing[2])
    return Layer("", name, outgoing[1:], kernel + module.use_bias * outgoing[-1], 2 * kernel * positions)
