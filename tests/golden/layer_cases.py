"""The golden cases of single layers, blocks, losses and perceptual networks."""

import numpy as np
from torch import Tensor

from tests.golden import seeded, torch_layers, torch_perceptual, torch_reference
from tests.golden.network_shapes import Shapes, attention_shapes, block_shapes, norm_shapes
from tests.golden.recorder import Function, GoldenFile, image, normal
from tests.golden.torch_layers import Parameters, channels_first, kernel_rows, to_torch_layout

REDUCED_CHANNELS = (4, 8, 16, 32, 32)
ICCV_CONTENT_WEIGHTS = {"vgg19": 0.15, "vggface": 0.025}


def channels_last(x: Tensor) -> Tensor:
    """[B C H W] as [B H W C]."""
    return x.permute(0, 2, 3, 1)


def within(path: str, weights: Parameters) -> Parameters:
    """The same weights one level deeper, as a layer that is given a path expects them."""
    return {f"{path}/{name}": value for name, value in weights.items()}


def unprefixed(path: str, shapes: Shapes) -> Shapes:
    """The shapes of one layer without its own path."""
    return {name.removeprefix(f"{path}/"): shape for name, shape in shapes.items()}


def spectral_norm_updates(_: Parameters, inputs: Parameters) -> dict[str, Tensor]:
    """Three updates: the kernel is another one each time, its vectors are carried on."""
    stats = {"layer/u": inputs["u"], "layer/v": inputs["v"]}
    outputs = {}
    for update in range(3):
        layer = to_torch_layout({"layer/kernel": inputs[f"kernel_{update}"]})
        stats = torch_layers.power_iteration(layer, stats)
        divided = torch_layers.divide_by_sigma(layer, stats)["layer/kernel"]
        outputs[f"u_{update}"], outputs[f"v_{update}"] = stats["layer/u"], stats["layer/v"]
        outputs[f"sigma_{update}"] = stats["layer/u"] @ kernel_rows(layer["layer/kernel"]) @ stats["layer/v"]
        outputs[f"divided_{update}"] = divided.permute(2, 3, 1, 0) if divided.ndim == 4 else divided.T
    return outputs


def record_spectral_norm(file: GoldenFile, case: str, shape: tuple[int, ...], *, scale: float) -> None:
    """A kernel that drifts over three updates (scale 0: it is zero, and nothing may divide by zero)."""
    inputs: dict[str, np.ndarray] = {}
    kernel = np.zeros(shape, np.float32)
    for update in range(3):
        size = scale if update == 0 else 0.2 * scale
        kernel = kernel + seeded.seeded_array(f"{case}/step_{update}", shape, seed=file.seed, scale=size)
        inputs[f"kernel_{update}"] = kernel
    for name, length in (("u", shape[-1]), ("v", int(np.prod(shape[:-1])))):
        vector = seeded.seeded_array(f"{case}/{name}", (length,), seed=file.seed)
        inputs[name] = vector / np.linalg.norm(vector)
    divided = [f"divided_{update}" for update in range(3)]
    kernels = [f"kernel_{update}" for update in range(3)]
    file.record(case, spectral_norm_updates, inputs=inputs, projected=divided, gradients=kernels)


def record_layers(file: GoldenFile) -> None:
    """Spectral norm, norms, attention and global pooling."""
    record_spectral_norm(file, "spectral_norm_convolution", (3, 3, 4, 5), scale=0.5)
    record_spectral_norm(file, "spectral_norm_dense", (6, 7), scale=0.5)
    record_spectral_norm(file, "spectral_norm_zero", (3, 3, 2, 3), scale=0.0)

    def instance_norm(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        x = channels_first(inputs["x"])
        return {"x": channels_last(torch_layers.instance_norm(x, weights["norm/scale"], weights["norm/bias"]))}

    # The second channel's variance is as small as epsilon, so that a wrong epsilon shows.
    spread, centre = np.array([2, 0.01, 0.3, 1], np.float32), np.array([1, 0.02, -0.5, 0], np.float32)
    x = seeded.seeded_array("instance_norm/x", (2, 6, 5, 4), seed=file.seed) * spread + centre
    file.record("instance_norm", instance_norm, inputs={"x": x}, parameters=norm_shapes("norm", 4))

    def adaptive_instance_norm(_: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        x = channels_first(inputs["x"])
        return {"x": channels_last(torch_layers.adaptive_instance_norm(x, inputs["scale"], inputs["shift"]))}

    vectors = {"scale": normal(2, 4, scale=0.3, offset=1.0), "shift": normal(2, 4, scale=0.3)}
    file.record("adaptive_instance_norm", adaptive_instance_norm, inputs={"x": x, **vectors})

    def attention(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        x = torch_layers.attention(within("attention", weights), "attention", channels_first(inputs["x"]))
        return {"x": channels_last(x)}

    shapes = unprefixed("attention", attention_shapes("attention", 16))
    file.record("attention", attention, inputs={"x": normal(2, 8, 8, 16, scale=2.0)}, parameters=shapes)

    for pool in ("sum", "mean"):
        for pool_order in ("sum_relu", "relu_sum"):

            def global_pool(
                _: Parameters, inputs: Parameters, pool: str = pool, pool_order: str = pool_order
            ) -> dict[str, Tensor]:
                x = channels_first(inputs["x"])
                return {"x": torch_reference.global_pool(x, pool=pool, pool_order=pool_order)}

            inputs = {"x": normal(2, 4, 4, 8)}
            file.record(f"global_pool_{pool}_{pool_order}", global_pool, inputs=inputs, prefix="global_pool")


def record_blocks(file: GoldenFile) -> None:
    """Each kind of block."""

    def down(*, first: bool) -> Function:
        def run(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
            x = torch_layers.down_block(within("block", weights), "block", channels_first(inputs["x"]), first=first)
            return {"x": channels_last(x)}

        return run

    def plain_residual(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        x = torch_layers.plain_residual_block(within("block", weights), "block", channels_first(inputs["x"]))
        return {"x": channels_last(x)}

    def adain(inputs: Parameters) -> torch_layers.AdainPair:
        return (inputs["scale_0"], inputs["shift_0"]), (inputs["scale_1"], inputs["shift_1"])

    def adaptive_residual(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        x = channels_first(inputs["x"])
        return {"x": channels_last(torch_layers.adaptive_residual_block(within("b", weights), "b", x, adain(inputs)))}

    def up(weights: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        x = channels_first(inputs["x"])
        return {"x": channels_last(torch_layers.up_block(within("b", weights), "b", x, adain(inputs)))}

    def adain_inputs(first: int, second: int) -> dict[str, dict]:
        return {
            "scale_0": normal(2, first, scale=0.3, offset=1.0),
            "shift_0": normal(2, first, scale=0.3),
            "scale_1": normal(2, second, scale=0.3, offset=1.0),
            "shift_1": normal(2, second, scale=0.3),
        }

    biased = unprefixed("block", block_shapes("block", 6, 8, bias=True))
    file.record("down_first", down(first=True), inputs={"x": normal(2, 8, 8, 6)}, parameters=biased)
    file.record("down", down(first=False), inputs={"x": normal(2, 8, 8, 6)}, parameters=biased)
    normed = unprefixed("block", block_shapes("block", 6, 8, bias=False))
    norms = norm_shapes("norm_0", 6) | norm_shapes("norm_1", 8)
    file.record("down_norm", down(first=False), inputs={"x": normal(2, 8, 8, 6)}, parameters=normed | norms)
    shapes = unprefixed("block", block_shapes("block", 6, 6, bias=True, skip=False))
    file.record("residual", plain_residual, inputs={"x": normal(2, 8, 8, 6)}, parameters=shapes)
    shapes = unprefixed("block", block_shapes("block", 6, 6, bias=False, skip=False))
    inputs = {"x": normal(2, 8, 8, 6), **adain_inputs(6, 6)}
    file.record("residual_adain", adaptive_residual, inputs=inputs, parameters=shapes)
    inputs = {"x": normal(2, 4, 4, 6), **adain_inputs(6, 8)}
    file.record("up", up, inputs=inputs, parameters=normed)


def layers_of(inputs: Parameters, prefix: str) -> list[Tensor]:
    """The inputs named `{prefix}_0`, `{prefix}_1`, ... in this order."""
    return [inputs[f"{prefix}_{layer}"] for layer in range(sum(name.startswith(f"{prefix}_") for name in inputs))]


def record_losses(file: GoldenFile) -> None:
    """Every loss, on activations, scores and vectors of its own."""
    features = {
        f"{side}_{network}_{layer}": normal(2, 8 >> layer, 8 >> layer, 4 << layer)
        for side in ("fake", "real")
        for network in ICCV_CONTENT_WEIGHTS
        for layer in range(3)
    }

    def content(_: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        fake = {network: layers_of(inputs, f"fake_{network}") for network in ICCV_CONTENT_WEIGHTS}
        real = {network: layers_of(inputs, f"real_{network}") for network in ICCV_CONTENT_WEIGHTS}
        return {"loss": torch_reference.content_loss(fake, real, ICCV_CONTENT_WEIGHTS)}

    fakes = [name for name in features if name.startswith("fake")]
    file.record("content", content, inputs=features, gradients=fakes)

    def feature_matching(_: Parameters, inputs: Parameters) -> dict[str, Tensor]:
        fake, real = layers_of(inputs, "fake"), layers_of(inputs, "real")
        return {"loss": torch_reference.feature_matching_loss(fake, real)}

    blocks = {f"{side}_{n}": normal(2, 8 >> n, 8 >> n, 4 << n) for side in ("fake", "real") for n in range(3)}
    file.record("feature_matching", feature_matching, inputs=blocks, gradients=["fake_0", "fake_1", "fake_2"])

    scores = {"real": normal(8, scale=1.5, offset=0.5), "fake": normal(8, scale=1.5, offset=-0.5)}
    file.record(
        "discriminator",
        lambda _, inputs: {"loss": torch_reference.discriminator_loss(inputs["real"], inputs["fake"])},
        inputs=scores,
    )
    file.record(
        "adversarial",
        lambda _, inputs: {"loss": torch_reference.adversarial_loss(inputs["fake"])},
        inputs={"fake": scores["fake"]},
    )
    file.record(
        "matching",
        lambda _, inputs: {"loss": torch_reference.matching_loss(inputs["embedding"], inputs["video_vector"])},
        inputs={"embedding": normal(3, 16), "video_vector": normal(3, 16)},
    )


def record_perceptual(file: GoldenFile) -> None:
    """The three feature pyramids with few channels, and their gradient with respect to the frame."""
    for case, network, mean in (
        ("vgg16", "vgg16", torch_perceptual.IMAGENET_MEAN_BGR),
        ("vgg19", "vgg19", torch_perceptual.IMAGENET_MEAN_BGR),
        ("vggface", "vgg16", torch_perceptual.VGGFACE_MEAN_BGR),
    ):

        def pyramid(
            weights: Parameters, inputs: Parameters, network: str = network, mean: tuple = mean
        ) -> dict[str, Tensor]:
            features = torch_perceptual.pyramid(weights, inputs["frame"], network=network, mean_bgr=mean)
            return {f"relu{block}_1": feature for block, feature in enumerate(features, start=1)}

        file.record(
            case,
            pyramid,
            inputs={"frame": image(1, 32, 32, 3)},
            parameters=torch_perceptual.pyramid_shapes(network, REDUCED_CHANNELS),
            spectral_norm=False,
            gradients=["frame"],
        )
