"""Fused and rewritten convolutions equal the plain ones: values, both gradients, and the choice of each form."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.models import convolution


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


FORMS = {
    "convolve": (lambda x, k: convolution.convolve(x, k, out=jnp.float32), plain),
    "then_pool": (
        lambda x, k: convolution.convolve_then_pool(x, k, out=jnp.float32),
        lambda x, k: convolution.average_pool(plain(x, k)),
    ),
    "after_upsample": (
        lambda x, k: convolution.upsample_then_convolve(x, k, out=jnp.float32),
        lambda x, k: plain(convolution.upsample(x), k),
    ),
}
# Much picture (fused), much kernel (a product), between (plain), few features (the other product), wide (Winograd).
SHAPES = [(2, 16, 4, 6), (1, 4, 64, 48), (1, 8, 32, 32), (3, 2, 24, 64), (2, 8, 28, 3), (1, 32, 64, 80)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3])
def test_every_form_is_the_plain_convolution(form: str, shape: tuple[int, int, int, int], size: int) -> None:
    batch, side, inputs, features = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, side, side, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, inputs, features)) / (size * inputs**0.5), jnp.float32)
    ours, reference = FORMS[form]
    result, pull = jax.vjp(jax.jit(ours), x, kernel)
    expected, pull_reference = jax.vjp(reference, x, kernel)
    np.testing.assert_allclose(result, expected, atol=2e-5)
    cotangent = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for name, a, b in zip(("input", "kernel"), pull(cotangent), pull_reference(cotangent), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * float(jnp.abs(b).max()), err_msg=f"gradient of the {name}")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_form_for_tpus_is_the_plain_convolution(shape: tuple[int, int, int, int]) -> None:
    batch, side, inputs, features = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, side, side, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, inputs, features)) / (3 * inputs**0.5), jnp.float32)
    result, pull = jax.vjp(lambda x, k: convolution._convolve_dilated(x, k, jnp.float32), x, kernel)
    expected, pull_reference = jax.vjp(FORMS["after_upsample"][1], x, kernel)
    np.testing.assert_allclose(result, expected, atol=2e-5)
    cotangent = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for name, a, b in zip(("input", "kernel"), pull(cotangent), pull_reference(cotangent), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * float(jnp.abs(b).max()), err_msg=f"gradient of the {name}")


def test_each_platform_gets_its_own_form_of_upsampling() -> None:
    """A TPU's program holds one dilated convolution; the others hold the four phases."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 32, 32, 8), (3, 3, 8, 8))]

    def program(platform: str) -> str:
        traced = jax.jit(FORMS["after_upsample"][0]).trace(*shapes)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    dilated = "lhs_dilate = [2, 2]"
    assert dilated in program("tpu")
    assert "concatenate" not in program("tpu")
    for platform in ("cpu", "cuda"):
        assert dilated not in program(platform)
        assert "concatenate" in program(platform)


@pytest.mark.parametrize(
    ("strides", "padding", "taps"), [((1, 1), "SAME", 3), ((2, 2), ((1, 1), (1, 1)), 4), ((1, 1), "VALID", 2)]
)
def test_gradients_are_xlas_own_and_stay_fast_in_loops(strides: tuple[int, int], padding: object, taps: int) -> None:
    """Within a loop, every convolution keeps the axis order for which XLA's CPU compiler is fast."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(taps, taps, 5, 7)), jnp.float32)

    def reference(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution._convolve(x, kernel, strides, padding, jnp.float32)

    def descended(function, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(lambda x, kernel: jnp.sum(function(x, kernel) ** 2), argnums=(0, 1))

        def once(both: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
            return jax.tree.map(lambda value, slope: value - 1e-3 * slope, both, gradient(*both)), None

        return jax.lax.scan(once, (x, kernel), length=3)[0]

    in_loop = jax.jit(lambda x, kernel: descended(ours, x, kernel))
    for result, expected in zip(in_loop(x, kernel), descended(reference, x, kernel), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-5)
    labels = re.findall(r"dim_numbers = (.*?), window", in_loop.lower(x, kernel).as_text())
    assert len(labels) >= 3
    assert {label.replace(" ", "") for label in labels} == {"[b,0,1,f]x[0,1,i,o]->[b,0,1,f]"}


def test_the_forms_are_chosen_as_they_should_be() -> None:
    """Resampling is fused for large feature maps; convolutions with large kernels become products."""

    def program(function, x_shape, kernel_shape) -> str:
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x_shape, kernel_shape)]
        return jax.jit(function).lower(*shapes).as_text()

    much_picture = program(FORMS["then_pool"][0], (1, 32, 32, 8), (3, 3, 8, 8))
    assert "stride = [2, 2]" in much_picture
    much_kernel = program(FORMS["convolve"][0], (1, 4, 4, 256), (3, 3, 256, 256))
    assert much_kernel.count("dot_general") == 1
    assert "convolution" not in much_kernel
    wide = program(FORMS["convolve"][0], (1, 32, 32, 64), (3, 3, 64, 64))
    assert wide.count("dot_general") == 16
    assert "convolution" not in wide
    odd = program(FORMS["convolve"][0], (1, 33, 33, 64), (3, 3, 64, 64))
    assert "convolution" in odd


def test_it_maps_over_identities() -> None:
    """vmap over kernels too: every person has their own."""
    x, kernels = jnp.ones((3, 1, 4, 4, 40)), jnp.ones((3, 3, 3, 40, 40))
    together = jax.vmap(FORMS["convolve"][0])(x, kernels)
    np.testing.assert_allclose(together[1], plain(x[1], kernels[1]), rtol=1e-5)


@pytest.fixture
def bfloat16_products(monkeypatch: pytest.MonkeyPatch):
    """A processor with fast bfloat16 products, and the permission to use it."""
    monkeypatch.setattr(convolution, "_multiplies_bfloat16", lambda: True)
    with jax.default_matmul_precision("bfloat16"):
        yield


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 8, 128, 64), (1, 8, 256, 256), (1, 4, 136, 128)])
def test_products_in_bfloat16_are_near_the_plain_convolution(bfloat16_products, form: str, shape) -> None:
    """Rounding both factors to 8 bits leaves 0.6 % of the result's size; Winograd's sums double that."""
    batch, side, inputs, features = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, side, side, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, inputs, features)) / (3 * inputs**0.5), jnp.float32)
    ours, reference = FORMS[form]
    result, pull = jax.vjp(jax.jit(ours), x, kernel)
    with jax.default_matmul_precision("highest"):
        expected, pull_reference = jax.vjp(reference, x, kernel)
        cotangent = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
        wanted = (expected, *pull_reference(cotangent))
    for name, a, b in zip(("result", "input", "kernel"), (result, *pull(cotangent)), wanted, strict=True):
        assert a.dtype == jnp.float32
        error = float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
        assert 0 < error < 0.015, f"{name}: {error}" if error else f"{name} is not rounded"


def test_products_in_bfloat16_need_permission_and_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 128), (3, 3, 128, 128))]
    narrow = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 32), (3, 3, 32, 32))]

    def rounds(shapes: list[jax.ShapeDtypeStruct]) -> bool:
        jax.clear_caches()
        return "bf16" in jax.jit(FORMS["convolve"][0]).lower(*shapes).as_text()

    for has_unit, precision, expected in ((True, None, False), (True, "high", False), (False, "bfloat16", False),
                                          (True, "bfloat16", True)):  # fmt: skip
        monkeypatch.setattr(convolution, "_multiplies_bfloat16", lambda has_unit=has_unit: has_unit)
        with jax.default_matmul_precision(precision):
            assert rounds(shapes) is expected
            assert not rounds(narrow)
