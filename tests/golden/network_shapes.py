"""The names and shapes of every parameter of the four networks, written out from the published layer tables.

Shapes are those of the JAX side: kernels of convolutions (height, width, in, out), kernels of dense layers (in, out).
`python -m tests.golden.network_shapes` prints the parameter counts at paper size.
"""

from math import prod
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]


class Depths(NamedTuple):
    """How deep the networks of one image size are, and at which resolutions attention stands (None: nowhere)."""

    trunk_blocks: int
    trunk_attention: int | None
    generator_blocks: int
    up_attention: int | None


DEPTHS = {
    256: Depths(6, 32, 4, 64),
    128: Depths(5, 16, 3, 32),
    64: Depths(4, 16, 3, 32),
    32: Depths(3, None, 2, None),
    16: Depths(2, None, 2, None),
}
RESIDUAL_BLOCKS = 4


def level_widths(levels: int, base_width: int) -> list[int]:
    """Channels of the first `levels` levels: doubled from level to level, at most 8 x base width."""
    return [min(8, 2**level) * base_width for level in range(levels)]


def trunk_widths(image_size: int, base_width: int) -> list[int]:
    """Output channels of the down blocks of E and D; the last one always has N = 8 x base width."""
    return [*level_widths(DEPTHS[image_size].trunk_blocks - 1, base_width), 8 * base_width]


def generator_widths(image_size: int, base_width: int) -> tuple[list[int], list[int]]:
    """Output channels of G's down blocks and of its up blocks, which mirror them."""
    down = level_widths(DEPTHS[image_size].generator_blocks, base_width)
    return down, down[::-1]


def adain_widths(image_size: int, base_width: int) -> list[int]:
    """Channels of every adaptive instance norm of G in the order in which they run."""
    down, up = generator_widths(image_size, base_width)
    widths = [down[-1]] * (2 * RESIDUAL_BLOCKS)
    for channels_in, channels_out in zip([down[-1], *up], up, strict=False):
        widths += [channels_in, channels_out]
    return [*widths, up[-1]]


def convolution_shapes(path: str, size: int, channels_in: int, channels_out: int, *, bias: bool) -> Shapes:
    """One square convolution."""
    shapes: Shapes = {f"{path}/kernel": (size, size, channels_in, channels_out)}
    return shapes | {f"{path}/bias": (channels_out,)} if bias else shapes


def block_shapes(path: str, channels_in: int, channels_out: int, *, bias: bool, skip: bool = True) -> Shapes:
    """The two 3x3 convolutions of a block and, unless its skip is the identity, the 1x1 convolution with its bias."""
    shapes = convolution_shapes(f"{path}/conv_0", 3, channels_in, channels_out, bias=bias)
    shapes |= convolution_shapes(f"{path}/conv_1", 3, channels_out, channels_out, bias=bias)
    return shapes | convolution_shapes(f"{path}/skip", 1, channels_in, channels_out, bias=True) if skip else shapes


def norm_shapes(path: str, channels: int) -> Shapes:
    """One affine instance norm."""
    return {f"{path}/scale": (channels,), f"{path}/bias": (channels,)}


def attention_shapes(path: str, channels: int) -> Shapes:
    """Self-attention: query and key on an eighth of the channels, value on a half."""
    shapes: Shapes = {}
    for name, channels_in, channels_out in (
        ("query", channels, channels // 8),
        ("key", channels, channels // 8),
        ("value", channels, channels // 2),
        ("out", channels // 2, channels),
    ):
        shapes |= convolution_shapes(f"{path}/{name}", 1, channels_in, channels_out, bias=False)
    return shapes | {f"{path}/gamma": ()}


def embedder_shapes(image_size: int, base_width: int, *, attention: bool = True) -> Shapes:
    """E, which is also the trunk of D."""
    shapes: Shapes = {}
    resolution, channels_in = image_size, 6
    for block, channels_out in enumerate(trunk_widths(image_size, base_width)):
        shapes |= block_shapes(f"down_{block}", channels_in, channels_out, bias=True)
        resolution, channels_in = resolution // 2, channels_out
        if attention and resolution == DEPTHS[image_size].trunk_attention:
            shapes |= attention_shapes("attention", channels_out)
    return shapes


def discriminator_shapes(image_size: int, base_width: int, *, attention: bool = True) -> Shapes:
    """D without the table of videos."""
    channels = 8 * base_width
    shapes = embedder_shapes(image_size, base_width, attention=attention)
    shapes |= block_shapes("residual", channels, channels, bias=True, skip=False)
    return shapes | {"shared": (channels,), "bias": ()}


def generator_shapes(image_size: int, base_width: int, *, attention: bool = True) -> Shapes:
    """G without P."""
    depths = DEPTHS[image_size]
    down, up = generator_widths(image_size, base_width)
    shapes: Shapes = {}
    resolution, channels_in = image_size, 3
    for block, channels_out in enumerate(down):
        path = f"down_{block}"
        shapes |= block_shapes(path, channels_in, channels_out, bias=block == 0)
        if block > 0:
            shapes |= norm_shapes(f"{path}/norm_0", channels_in) | norm_shapes(f"{path}/norm_1", channels_out)
        resolution, channels_in = resolution // 2, channels_out
        if attention and resolution == depths.trunk_attention:
            shapes |= attention_shapes("attention_down", channels_out)
    for block in range(RESIDUAL_BLOCKS):
        shapes |= block_shapes(f"residual_{block}", channels_in, channels_in, bias=False, skip=False)
    for block, channels_out in enumerate(up):
        shapes |= block_shapes(f"up_{block}", channels_in, channels_out, bias=False)
        resolution, channels_in = resolution * 2, channels_out
        if attention and resolution == depths.up_attention:
            shapes |= attention_shapes("attention_up", channels_out)
    return shapes | convolution_shapes("to_rgb", 3, channels_in, 3, bias=True)


def projection_shapes(image_size: int, base_width: int) -> Shapes:
    """P: from the identity embedding to all AdaIN scales and shifts."""
    outputs = 2 * sum(adain_widths(image_size, base_width))
    return {"dense/kernel": (8 * base_width, outputs), "dense/bias": (outputs,)}


def parameter_count(shapes: Shapes) -> int:
    """Numbers in all the arrays of these shapes."""
    return sum(prod(shape) for shape in shapes.values())


def main() -> None:
    """Print the counts at paper size beside the known ones (in millions, without attention)."""
    projection = parameter_count(projection_shapes(256, 64))
    print(f"A {2 * sum(adain_widths(256, 64)):,} (known 13,056), P {projection / 1e6:.3f} M (known 6.70)")
    for name, table, extra, known in (
        ("E", embedder_shapes, 0, 14.83),
        ("G with P", generator_shapes, projection, 37.91),
        ("D without W", discriminator_shapes, 0, 19.55),
    ):
        plain = (parameter_count(table(256, 64, attention=False)) + extra) / 1e6
        attended = (parameter_count(table(256, 64)) + extra) / 1e6
        print(f"{name}: {plain:.3f} M without attention (known {known}), {attended:.3f} M with it")


if __name__ == "__main__":
    main()
