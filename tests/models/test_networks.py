"""The networks: sizes, initialization, gradients, precision, and rejection of foreign weights."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import command

from th_jax.data.episodes import decode_frame
from th_jax.data.records import bundled_heads, read_videos
from th_jax.images import to_network_range
from th_jax.models import spectral, summary
from th_jax.models.checks import check_same_tree
from th_jax.models.layers import SelfAttention, SpectralDense, UpBlock
from th_jax.models.networks import Networks, group
from th_jax.models.sizes import plan
from th_jax.models.spectral import power_iterate
from th_jax.storage.tensors import leaves_by_name
from th_jax.types import MetaWeights, NetworkState

SMALL = Networks(image_size=64, base_width=8)


class People(NamedTuple):
    """One frame of each of 16 held-out heads, at 64 px."""

    frames: jax.Array
    landmarks: jax.Array


@pytest.fixture(scope="module")
def weights():
    return SMALL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def people() -> People:
    records = [record for _, record in itertools.islice(read_videos(bundled_heads(), "heldout"), 16)]
    frames = np.stack([decode_frame(record.frames[0], size=64) for record in records])
    return People(
        to_network_range(jnp.asarray(frames)), jnp.asarray(np.stack([record.true_landmarks[0] for record in records]))
    )


@pytest.fixture(scope="module")
def wide():
    """Networks of 64 px with half of the paper's channels, and their weights."""
    networks = Networks(image_size=64, base_width=32)
    return networks, networks.init(jax.random.key(0))


def pictures(count: int, size: int = 64, seed: int = 1) -> jax.Array:
    """Smooth random images in [-1, 1] with different content."""
    coarse = jax.random.uniform(jax.random.key(seed), (count, 8, 8, 3), minval=-1, maxval=1)
    return jax.image.resize(coarse, (count, size, size, 3), "bilinear")


def face_landmarks(count: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(3), (count, 68, 2), minval=0.2, maxval=0.8)


# Parameters in millions without attention (docs/paper-map.md), and the attention blocks' own.
PAPER = {"embedder": 14.83, "generator with projection": 37.91, "discriminator": 19.55}


def attention_parameters(channels: int) -> int:
    return channels * channels // 8 * 2 + channels * channels // 2 * 2 + 1


def test_paper_size_has_the_papers_parameters() -> None:
    counts = summary.parameter_counts(Networks())
    attention = attention_parameters(256)
    without = {
        "embedder": counts["embedder"] - attention,
        "generator with projection": counts["generator"] + counts["projection"] - 2 * attention,
        "discriminator": counts["discriminator"] - attention,
    }
    for name, expected in PAPER.items():
        assert without[name] / 1e6 == pytest.approx(expected, rel=0.01), name
    assert counts["projection"] / 1e6 == pytest.approx(6.70, rel=0.01)
    assert Networks().plan.adain_size == 13_056


def test_paper_size_has_the_papers_arithmetic() -> None:
    layers = [layer for layer in summary.layers(Networks()) if "attention" not in layer.name]
    flop = {name: sum(layer.flop for layer in layers if layer.network in name) for name in ("E", "GP", "D")}
    assert flop["E"] / 1e9 == pytest.approx(31.1, rel=0.01)
    assert flop["GP"] / 1e9 == pytest.approx(94.4, rel=0.01)
    assert flop["D"] / 1e9 == pytest.approx(31.2, rel=0.01)


def test_the_printed_table_counts_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("summary")(["--image-size", "64", "--base-width", "8"]) == 0
    printed = capsys.readouterr().out
    counts = summary.parameter_counts(SMALL)
    assert f"E, embedder{summary.millions(counts['embedder']):>33}" in printed
    rows = summary.layers(SMALL)
    listed = sum(row.parameters for row in rows if row.network == "E")
    assert listed == counts["embedder"]
    # The table has layers; what it leaves out of G are scales and biases of the norms before either convolution.
    down = SMALL.plan.generator_down
    norms = sum(2 * before + 2 * after for before, after in itertools.pairwise(down))
    generator = sum(row.parameters for row in rows if row.network == "G")
    assert counts["generator"] == generator + norms


def test_the_table_rejects_an_unknown_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("summary")(["--image-size", "100"]) == 1
    assert "image_size must be one of 256, 128, 64, 32, 16, got 100" in capsys.readouterr().err


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_every_size_has_its_shapes(size: int) -> None:
    networks = Networks(image_size=size, base_width=4)
    shapes = networks.shapes()
    picture = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    vector = jax.ShapeDtypeStruct((2, networks.plan.embedding), jnp.float32)
    embedding = jax.eval_shape(networks.embed, group(shapes.synthesis, "embedder"), picture, picture)
    adain = jax.eval_shape(networks.project, group(shapes.synthesis, "projection"), vector)
    frame = jax.eval_shape(networks.generate, group(shapes.synthesis, "generator"), picture, adain)
    score, features = jax.eval_shape(networks.discriminate, shapes.discriminator, picture, picture, vector)
    assert embedding.shape == (2, 32)
    assert adain.shape == (2, networks.plan.adain_size)
    assert frame.shape == (2, size, size, 3)
    assert score.shape == (2,)
    assert len(features) == len(networks.plan.encoder) + 1
    assert features[-1].shape == (2, 4, 4, 32)


def test_attention_is_placed_as_in_the_table() -> None:
    for size, encoder, generator in ((256, 32, 64), (128, 16, 32), (64, 16, 32), (32, None, None)):
        layout = plan(image_size=size, base_width=8)
        assert (layout.encoder_attention, layout.generator_attention) == (encoder, generator)
        names = set(Networks(image_size=size, base_width=8).shapes().synthesis.params["generator"])
        assert ({"attention_down", "attention_up"} <= names) == (encoder is not None)


def test_the_same_key_gives_the_same_weights(weights) -> None:
    again, other = SMALL.init(jax.random.key(0)), SMALL.init(jax.random.key(7))
    assert all(map(np.array_equal, jax.tree.leaves(weights), jax.tree.leaves(again)))
    kernel = ("generator", "down_0", "conv_0", "kernel")
    a, b = weights.synthesis.params, other.synthesis.params
    for name in kernel:
        a, b = a[name], b[name]
    assert not np.array_equal(a, b)


def test_initial_weights_have_their_distributions(weights) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path((weights.synthesis.params, weights.discriminator.params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel"):
            matrix = np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])
            gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5, err_msg=name)
        elif "projection" in name:
            widths = SMALL.plan.adain_widths
            expected = np.concatenate([[1.0] * w + [0.0] * w for w in widths])
            np.testing.assert_array_equal(leaf, expected)
        elif name.endswith("shared"):
            assert 0.01 < float(jnp.std(leaf)) < 0.04
        else:
            assert np.all(np.asarray(leaf) == (1.0 if name.endswith("scale") else 0.0)), name


def test_u_and_v_start_converged(weights) -> None:
    settled = power_iterate(weights.synthesis.params, weights.synthesis.spectral_stats, iterations=5)
    for a, b in zip(jax.tree.leaves(settled), jax.tree.leaves(weights.synthesis.spectral_stats), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_power_iterations_outside_of_a_program_are_compiled_once_for_each_shape() -> None:
    state = Networks(image_size=16, base_width=4).init(jax.random.key(0)).discriminator
    kernels = [leaf for name, leaf in leaves_by_name(state.params).items() if name.endswith("kernel")]
    shapes = {leaf.reshape(-1, leaf.shape[-1]).shape for leaf in kernels}
    spectral._iterate_often.clear_cache()
    for _ in range(2):
        power_iterate(state.params, state.spectral_stats, iterations=7)
        assert 0 < spectral._iterate_often._cache_size() <= len(shapes) < len(kernels)


@pytest.mark.slow
def test_flax_and_host_initialization_agree(weights) -> None:
    """The modules' own initializers agree: same names, same constants, orthogonal kernels."""
    module = SMALL.discriminator
    picture = jnp.zeros((1, 64, 64, 3))
    flax = module.init(jax.random.key(0), picture, picture, jnp.zeros((1, SMALL.plan.embedding)))
    check_same_tree("D", weights.discriminator.params, flax["params"])
    kernel = np.asarray(flax["params"]["down_1"]["conv_1"]["kernel"]).reshape(-1, 16)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(16), atol=1e-5)
    assert float(jnp.linalg.norm(flax["spectral_stats"]["residual"]["conv_0"]["u"])) == pytest.approx(1, abs=1e-5)


def test_identity_reaches_the_adain_parameters(people: People, wide) -> None:
    """The part of P·ê that differs between 16 people at initialization; torch's default leaves a tenth of it."""
    networks, weights = wide
    landmark_image = networks.landmark_image(people.landmarks)
    embed, project = jax.jit(networks.embed), jax.jit(networks.project)
    embedding = embed(group(weights.synthesis, "embedder"), people.frames, landmark_image)
    adain = project(group(weights.synthesis, "projection"), embedding)
    # Each parameter around its mean over the people: what they have in common says nothing of who they are.
    assert float(jnp.sqrt(adain.var(axis=0).mean())) >= 0.1


def test_no_gradient_reaches_u_and_v(weights) -> None:
    frame = pictures(2)

    def objective(stats):
        state = NetworkState(weights.synthesis.params["embedder"], stats)
        return SMALL.embed(state, frame, frame).sum()

    gradients = jax.jit(jax.grad(objective))(weights.synthesis.spectral_stats["embedder"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_every_parameter_of_every_network_gets_a_gradient(weights) -> None:
    """It equals the central difference. Attention gets none while gamma is 0, biases before norms never."""
    frame, landmark_image = pictures(2), SMALL.landmark_image(face_landmarks(2))

    def objective(synthesis, discriminator):
        synthesis = NetworkState(synthesis, weights.synthesis.spectral_stats)
        embedding = SMALL.embed(group(synthesis, "embedder"), frame, landmark_image)
        adain = SMALL.project(group(synthesis, "projection"), embedding)
        fake = SMALL.generate(group(synthesis, "generator"), landmark_image, adain)
        state = NetworkState(discriminator, weights.discriminator.spectral_stats)
        score, _ = SMALL.discriminate(state, fake, landmark_image, jnp.zeros_like(embedding))
        return score.sum() + (fake**2).sum()

    params = (weights.synthesis.params, weights.discriminator.params)
    gradients = jax.jit(jax.grad(objective, argnums=(0, 1)))(*params)
    value = jax.jit(objective)
    leaves, structure = jax.tree.flatten(jax.device_get(params))
    flat = set()
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(jax.device_get(gradients))):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "attention" in name and "gamma" not in name:
            assert not np.any(leaf), name
        else:
            slope = float(np.linalg.norm(leaf))
            if slope < 1e-3:  # of an objective of thousands: rounding
                flat.add(name)
                continue
            step = np.float32(0.01 / slope) * leaf
            above, below = (
                float(value(*jax.tree.unflatten(structure, [*leaves[:number], moved, *leaves[number + 1 :]])))
                for moved in (leaves[number] + step, leaves[number] - step)
            )
            assert (above - below) / 0.02 == pytest.approx(slope, rel=0.2), name
    ahead_of_norms = (
        "down_0/conv_1",
        "down_0/skip",
        "down_1/skip",
        "down_2/skip",
        "up_0/skip",
        "up_1/skip",
        "up_2/skip",
    )
    assert flat == {f"0/generator/{layer}/bias" for layer in ahead_of_norms}


def test_attention_in_bfloat16_tells_affinities_apart_that_bfloat16_does_not() -> None:
    # Affinities of 256 and 256.5: the same number in bfloat16, so that a softmax of that type would give a half.
    x = np.zeros((1, 4, 4, 16), np.float32)
    x[..., :3] = 16, 0.5, 16
    x[:, :2, :, 3] = 1
    picks = {"query": [(0, 0), (1, 1)], "key": [(2, 0), (3, 1)], "value": [(3, 0)], "out": [(0, 4)]}
    shapes = {"query": (16, 2), "key": (16, 2), "value": (16, 8), "out": (8, 16)}
    params: dict[str, Any] = {"gamma": jnp.float32(1)}
    for name, shape in shapes.items():
        kernel = np.zeros((1, 1, *shape), np.float32)
        for place in picks[name]:
            kernel[(0, 0, *place)] = 1
        params[name] = {"kernel": jnp.asarray(kernel)}
    block = SelfAttention(spectral_norm=False, dtype=jnp.bfloat16)
    attended = block.apply({"params": params}, jnp.asarray(x, jnp.bfloat16))[..., 4]
    np.testing.assert_allclose(attended.astype(jnp.float32), 1 / (1 + np.exp(-0.5)), atol=4e-3)


def test_sums_of_an_up_block_reach_the_norms_in_float32() -> None:
    seen = []

    def normalize(x: Any) -> Any:
        seen.append(x)
        return x

    block = UpBlock(4, spectral_norm=False, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    variables = block.init(jax.random.key(1), x, normalize, normalize)
    seen.clear()
    result = block.apply(variables, x, normalize, normalize)
    for values in (seen[1], result):
        assert values.dtype == jnp.float32
        assert (values != values.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.5


def test_bfloat16_stays_within_two_percent(people: People, wide) -> None:
    wide_networks, weights = wide
    half = Networks(image_size=64, base_width=32, compute_dtype="bfloat16")
    frame, landmark_image = people.frames[:2], half.landmark_image(people.landmarks[:2])
    results = []
    for networks in (wide_networks, half):

        @jax.jit
        def forward(weights: MetaWeights, networks: Networks = networks) -> tuple[jax.Array, ...]:
            embedding = networks.embed(group(weights.synthesis, "embedder"), frame, landmark_image)
            adain = networks.project(group(weights.synthesis, "projection"), embedding)
            generated = networks.generate(group(weights.synthesis, "generator"), landmark_image, adain)
            score, features = networks.discriminate(weights.discriminator, frame, landmark_image, embedding)
            assert generated.dtype == embedding.dtype == score.dtype == jnp.float32
            return embedding, generated, *features

        results.append(forward(weights))
    for wide, narrow in zip(*results, strict=True):
        error = jnp.linalg.norm(wide - narrow.astype(jnp.float32)) / jnp.linalg.norm(wide)
        assert float(error) < 0.02


def test_the_generator_uses_strict_types(weights) -> None:
    with jax.numpy_dtype_promotion("strict"):
        adain = jnp.ones((1, SMALL.plan.adain_size))
        landmark_image = SMALL.landmark_image(face_landmarks(1))
        out = jax.jit(SMALL.generate)(group(weights.synthesis, "generator"), landmark_image, adain)
    assert out.dtype == jnp.float32
    assert float(jnp.abs(out).max()) <= 1


def test_weights_of_flax_init_can_be_applied() -> None:
    """Its u and v fit their kernels: normalized, each has the largest singular value 1, for any shape."""
    for features in (4, 40):
        layer = SpectralDense(features)
        made = layer.init(jax.random.key(0), jnp.ones((1, 12)))
        stats = made["spectral_stats"]
        normalized = spectral.normalized_kernel(made["params"]["kernel"], stats["u"], stats["v"])
        assert float(jnp.linalg.norm(normalized, 2)) == pytest.approx(1, abs=1e-5)
    kernel = 3 * jax.random.normal(jax.random.key(1), (12, 40))
    given = {"params": {"kernel": kernel, "bias": jnp.zeros(40)}}
    _, found = layer.apply(given, jnp.ones((1, 12)), mutable="spectral_stats", rngs={"params": jax.random.key(2)})
    stats = found["spectral_stats"]
    assert float(jnp.linalg.norm(spectral.normalized_kernel(kernel, stats["u"], stats["v"]), 2)) < 2
