"""Channels and attention resolutions of each network at each image size (docs/paper-map.md)."""

from typing import NamedTuple

IMAGE_SIZES = (256, 128, 64, 32, 16)
"""32 and 16 are for tests: no attention, and two down blocks in the generator."""

MIDDLE_BLOCKS = 4
"""Residual blocks of the generator at its lowest resolution."""

MIN_BASE_WIDTH = 4
"""Attention projects to an eighth of at least twice the base width."""

_WIDEST = 8  # channels of level n: min(8, 2^n) x base width


class Plan(NamedTuple):
    """Channels of the blocks, in order, and the resolutions that are followed by attention (None: no attention)."""

    embedding: int
    encoder: tuple[int, ...]
    """Down blocks of the embedder and the discriminator, down to 4x4."""
    encoder_attention: int | None
    generator_down: tuple[int, ...]
    generator_up: tuple[int, ...]
    generator_attention: int | None
    outer: int = 0
    """Channels of an outer block at each end of the networks, at the full resolution; 0 for none. The other entries describe
    the core, which works at half of it."""

    @property
    def adain_widths(self) -> tuple[int, ...]:
        """Channels of each adaptive instance norm, in order of execution."""
        middle = self.generator_down[-1]
        widths = [middle] * (2 * MIDDLE_BLOCKS)
        incoming = middle
        for outgoing in self.generator_up:
            widths += [incoming, outgoing]
            incoming = outgoing
        return (*widths, incoming, *([incoming, self.outer, self.outer] if self.outer else []))

    @property
    def adain_size(self) -> int:
        """A: one scale and one shift for each normalized channel; 13,056 at paper size."""
        return 2 * sum(self.adain_widths)


def plan(*, image_size: int, base_width: int, max_width: int = 0) -> Plan:
    """Return the plan for images of `image_size` pixels with `base_width` channels at the first level.

    The last down block of E and D has as many channels as the embedding has numbers; from 64 px on, the formula of the levels
    gives the same number.

    Args:
        image_size: side of the square frames in pixels.
        base_width: channels of the first level.
        max_width: width of the embedding, 512 in the paper; 0 for 8 x base width. With 16 x base width, the networks are those
            for half the image size at twice the base width, with an outer block at each end.

    Raises:
        ValueError: if the image size is not in `IMAGE_SIZES`, attention cannot divide the width, or `max_width` has another
            value.
    """
    if max_width == 2 * _WIDEST * base_width:
        return plan(image_size=image_size // 2, base_width=2 * base_width)._replace(outer=base_width)
    if max_width not in (0, _WIDEST * base_width):
        raise ValueError(
            f"max_width must be 0, {_WIDEST * base_width} or {2 * _WIDEST * base_width} at base_width {base_width}, "
            f"got {max_width}"
        )
    if image_size not in IMAGE_SIZES:
        raise ValueError(f"image_size must be one of {', '.join(map(str, IMAGE_SIZES))}, got {image_size}")
    if base_width < MIN_BASE_WIDTH or base_width % MIN_BASE_WIDTH:
        raise ValueError(f"base_width must be a positive multiple of {MIN_BASE_WIDTH}, got {base_width}")
    encoder_blocks = image_size.bit_length() - 3  # 256 → 6: each halves the resolution, down to 4x4
    generator_blocks = {256: 4, 128: 3, 64: 3, 32: 2, 16: 2}[image_size]
    down = _levels(generator_blocks, base_width)
    return Plan(
        embedding=_WIDEST * base_width,
        encoder=(*_levels(encoder_blocks, base_width)[:-1], _WIDEST * base_width),
        encoder_attention={256: 32, 128: 16, 64: 16}.get(image_size),
        generator_down=down,
        generator_up=down[::-1],
        generator_attention={256: 64, 128: 32, 64: 32}.get(image_size),
    )


def _levels(count: int, base_width: int) -> tuple[int, ...]:
    return tuple(min(_WIDEST, 2**level) * base_width for level in range(count))
