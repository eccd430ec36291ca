"""Meta weights of the smallest networks, and photos of rendered people, for tests of whole commands."""

from collections.abc import Sequence
from pathlib import Path

import jax

from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.models.networks import Networks
from th_jax.weights import save_meta


def write_tiny_weights(path: Path) -> None:
    """Write fresh weights with VGG16 as the perceptual network."""
    networks = Networks(image_size=16, base_width=4)
    save_meta(
        path,
        networks=networks,
        weights=networks.init(jax.random.key(0)),
        perceptual=["vgg16"],
        description={"name": "tiny", "steps": 1, "data": "none", "licence": "CC0-1.0"},
    )


def write_photos(folder: Path, *, person: int, frames: Sequence[int]) -> None:
    """Write frames of a bundled held-out person as FRAME.jpg into a new folder."""
    record = VideoRecords(bundled_heads(), "heldout").read(person)
    folder.mkdir(parents=True)
    for frame in frames:
        (folder / f"{frame}.jpg").write_bytes(bytes(record.frames[frame]))
