"""Makes the golden arrays: `python -m tests.golden.make_golden` (needs PyTorch, see README.md beside this file)."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tests.golden import network_shapes, seeded, torch_reference
from tests.golden.layer_cases import record_blocks, record_layers, record_losses, record_perceptual
from tests.golden.recorder import Function, GoldenFile, image, normal
from tests.golden.torch_layers import Parameters

SEED = 8233
BATCH = 2
BASE_WIDTH = 4
POOL_ORDERS = ("sum_relu", "relu_sum")


def embedder(pool_order: str) -> Function:
    """E as a case."""

    def run(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        return {"embedding": torch_reference.embedder(weights, **inputs, pool_order=pool_order)}

    return run


def discriminator(pool_order: str) -> Function:
    """D as a case."""

    def run(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        score, features = torch_reference.discriminator(weights, **inputs, pool_order=pool_order)
        # The order of pooling does not touch the features: they are kept once.
        kept = features if pool_order == POOL_ORDERS[0] else []
        return {"score": score} | {f"feature_{block}": feature for block, feature in enumerate(kept)}

    return run


def generator(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
    """G as a case."""
    return {"frame": torch_reference.generator(weights, **inputs)}


def adain_projection(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
    """P as a case."""
    return {"adain": torch_reference.adain_projection(weights, **inputs)}


def seeded_adain(image_size: int) -> np.ndarray:
    """AdaIN parameters with scales around 1 and shifts around 0, each norm's scales before its shifts."""
    parts = []
    for index, width in enumerate(network_shapes.adain_widths(image_size, BASE_WIDTH)):
        name = f"generator_{image_size}/adain_{index}"
        parts.append(seeded.seeded_array(f"{name}/scale", (BATCH, width), seed=SEED, scale=0.3, offset=1.0))
        parts.append(seeded.seeded_array(f"{name}/shift", (BATCH, width), seed=SEED, scale=0.3))
    return np.concatenate(parts, axis=1)


def chosen(shapes: network_shapes.Shapes, image_size: int) -> list[str]:
    """The parameters whose gradients are kept: all at 16 px, else a few from both ends and the attentions."""
    if image_size == 16:
        return list(shapes)
    last_down = network_shapes.DEPTHS[image_size].trunk_blocks - 1
    names = {"down_0/conv_0/kernel", "down_0/skip/bias", f"down_{last_down}/conv_1/kernel", "up_0/skip/kernel"}
    names |= {"down_1/norm_0/scale", "down_1/norm_1/bias", "shared", "bias", "to_rgb/kernel", "to_rgb/bias"}
    return [path for path in shapes if path in names or path.startswith("attention")]


def record_networks(file: GoldenFile, *, image_size: int) -> None:
    """E, P, G and D at one image size."""
    images = {name: image(BATCH, image_size, image_size, 3) for name in ("frame", "landmark_image")}
    identity = 8 * BASE_WIDTH

    shapes = network_shapes.embedder_shapes(image_size, BASE_WIDTH)
    # At 64 px E's gradient is kept for the frame and D's for the landmark image: large arrays that say the same.
    followed = ["frame", *(["landmark_image"] if image_size < 64 else []), *chosen(shapes, image_size)]
    for pool_order in POOL_ORDERS:
        file.record(
            f"embedder_{pool_order}",
            embedder(pool_order),
            inputs=images,
            parameters=shapes,
            prefix=f"embedder_{image_size}",
            gradients=followed if pool_order == POOL_ORDERS[0] else ["down_0/conv_0/kernel"],
        )

    shapes = network_shapes.projection_shapes(image_size, BASE_WIDTH)
    embedding = {"embedding": normal(BATCH, identity)}
    prefix = f"adain_projection_{image_size}"
    file.record("adain_projection", adain_projection, inputs=embedding, parameters=shapes, prefix=prefix)

    shapes = network_shapes.generator_shapes(image_size, BASE_WIDTH)
    file.record(
        "generator",
        generator,
        inputs={"landmark_image": images["landmark_image"], "adain": seeded_adain(image_size)},
        parameters=shapes,
        prefix=f"generator_{image_size}",
        gradients=["landmark_image", "adain", *chosen(shapes, image_size)],
    )

    shapes = network_shapes.discriminator_shapes(image_size, BASE_WIDTH)
    inputs = {**images, "identity": normal(BATCH, identity)}
    followed = ["landmark_image", "identity", *(["frame"] if image_size < 64 else []), *chosen(shapes, image_size)]
    for pool_order in POOL_ORDERS:
        file.record(
            f"discriminator_{pool_order}",
            discriminator(pool_order),
            inputs=inputs,
            parameters=shapes,
            prefix=f"discriminator_{image_size}",
            projected=["score"],
            gradients=followed if pool_order == POOL_ORDERS[0] else ["down_0/conv_0/kernel"],
        )
    if image_size == 16:
        blocks = [f"feature_{block}" for block in range(network_shapes.DEPTHS[image_size].trunk_blocks + 1)]
        file.record(
            "discriminator_features",
            discriminator("sum_relu"),
            inputs=inputs,
            parameters=shapes,
            prefix=f"discriminator_{image_size}",
            projected=blocks,
            gradients=["frame", "landmark_image", "down_0/conv_0/kernel", "residual/conv_1/kernel"],
        )


def main() -> None:
    """Write every golden file and print its size and how closely float32 follows float64."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    makers: dict[str, Callable[[GoldenFile], None]] = {
        "layers": record_layers,
        "blocks": record_blocks,
        "losses": record_losses,
        "perceptual": record_perceptual,
    }
    for image_size in (16, 32, 64):
        makers[f"networks_{image_size}"] = partial(record_networks, image_size=image_size)
    total = 0
    for name, maker in makers.items():
        file = GoldenFile(seed=SEED)
        maker(file)
        size = file.save(name)
        total += size
        print(f"{name}.npz  {size:,} bytes  {len(file.cases)} cases  float32 within {file.worst_float32:.1e}")
    print(f"in all {total:,} bytes")
    network_shapes.main()


if __name__ == "__main__":
    main()
