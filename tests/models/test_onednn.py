"""Convolutions by oneDNN's library against XLA's, where this machine can compile and run it."""

import concurrent.futures
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.cli import doctor
from th_jax.cli import kernels as command
from th_jax.cli.main import main
from th_jax.models import convolution, onednn
from th_jax.program_cache import cached_jit, use_program_cache

FORMS = (convolution.convolve, convolution.convolve_then_pool, convolution.upsample_then_convolve)
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "kernels" / onednn.library_name()
    path.parent.mkdir(mode=0o700)
    try:
        onednn.compile_library(path)
    except onednn.KernelsError as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(autouse=True)
def not_afterwards() -> Iterator[None]:
    yield
    onednn.use_library(None)


@pytest.fixture
def in_use(library: Path) -> Iterator[None]:
    onednn.use_library(library)
    with jax.default_matmul_precision("bfloat16"):
        yield


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def rounded(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32)


def error(made: jax.Array, wanted: jax.Array) -> float:
    return float(jnp.linalg.norm(made - wanted) / jnp.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("batch", "side", "inputs", "features", "taps", "stride", "pad"),
    [
        (2, 16, 32, 64, 3, 1, 1),  # kernels packed by 64 features
        (1, 8, 64, 32, 3, 1, 1),  # by 32
        (1, 8, 96, 128, 3, 1, 1),
        (2, 16, 64, 3, 3, 1, 1),  # too narrow to pack
        (2, 16, 3, 48, 3, 1, 1),
        (2, 16, 32, 48, 4, 2, 1),  # with pooling
        (2, 7, 64, 128, 2, 1, 1),  # four phases
    ],
)
def test_results_and_gradients_are_those_of_rounded_operands(
    in_use: None, batch: int, side: int, inputs: int, features: int, taps: int, stride: int, pad: int
) -> None:
    """Products of bfloat16 numbers are exact in float32: only the order of the sums differs."""

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = ((pad, pad), (pad, pad))
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=DIMENSIONS)

    x, kernel = arrays((batch, side, side, inputs), (taps, taps, inputs, features))
    with jax.default_matmul_precision("highest"):
        wanted, pull_plain = jax.vjp(plain, rounded(x), rounded(kernel))
        (cotangent,) = arrays(wanted.shape)
        of_input, of_kernel = pull_plain(rounded(cotangent))
    made, pull = jax.vjp(lambda x, kernel: onednn.convolve(x, kernel, stride, pad), jnp.asarray(x), jnp.asarray(kernel))
    for ours, theirs in zip((made, *pull(jnp.asarray(cotangent))), (wanted, of_input, of_kernel), strict=True):
        assert ours.dtype == jnp.float32
        assert error(ours, theirs) < 1e-6


@pytest.mark.parametrize(("form", "taps"), list(itertools.product(FORMS, (1, 3))))
def test_every_form_uses_it_and_is_near_the_plain_one(in_use: None, form, taps: int) -> None:
    x, kernel = map(jnp.asarray, arrays((1, 16, 16, 32), (taps, taps, 32, 32)))

    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return form(x, kernel, out=jnp.float32)

    program = jax.jit(run).lower(x, kernel).as_text()
    assert ("th_jax_convolve" in program) == (taps == 3)
    assert "stablehlo.convolution" not in program
    made, pull = jax.vjp(run, x, kernel)
    with jax.default_matmul_precision("highest"):
        wanted, pull_plain = jax.vjp(lambda x, kernel: form(x, kernel, out=jnp.float32), x, kernel)
    for ours, theirs in zip((made, *pull(made)), (wanted, *pull_plain(made)), strict=True):
        assert 0 < error(ours, theirs) < 0.01


def test_it_is_used_with_permission_on_one_device_alone(in_use: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = map(jnp.asarray, arrays((1, 8, 8, 32), (3, 3, 32, 32)))

    def uses_it(dtype: type = jnp.float32) -> bool:
        program = jax.jit(lambda x, kernel: convolution.convolve(x, kernel, out=dtype))
        return "th_jax_convolve" in program.lower(x.astype(dtype), kernel.astype(dtype)).as_text()

    # Processors with AVX512-BF16 and no matrix unit may compile it, so they use it too.
    monkeypatch.setattr(convolution, "processor_has", lambda flag: flag == "avx512_bf16")
    assert uses_it()
    assert not uses_it(jnp.bfloat16)
    with jax.default_matmul_precision("high"):
        assert not uses_it()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "local_device_count", lambda: 2)
        assert not uses_it()
    onednn.use_library(None)
    assert not uses_it()


def test_a_stored_program_calls_it_and_one_without_it_is_another(in_use: None, library: Path, tmp_path: Path) -> None:
    use_program_cache(tmp_path / "traced")
    x, kernel = map(jnp.asarray, arrays((1, 8, 8, 32), (3, 3, 32, 32)))
    traces = []

    def run() -> np.ndarray:
        def function(x: jax.Array, kernel: jax.Array) -> jax.Array:
            traces.append(onednn.in_use())
            return convolution.convolve(x, kernel, out=jnp.float32)

        return np.asarray(cached_jit(function, key="layer")(x, kernel))

    try:
        first = run()
        np.testing.assert_array_equal(run(), first)
        assert traces == [True]
        onednn.use_library(None)
        assert (run() != first).any()
        assert traces == [True, False]
        onednn.use_library(library)
        np.testing.assert_array_equal(run(), first)
        assert traces == [True, False]
    finally:
        use_program_cache(None)


def test_it_maps_over_people_and_can_be_called_from_several_threads(in_use: None) -> None:
    x, kernels = map(jnp.asarray, arrays((8, 2, 8, 8, 32), (8, 3, 3, 32, 32)))
    mapped = jax.vmap(lambda x, kernel: onednn.convolve(x, kernel, 1, 1))(x, kernels)
    once = jax.jit(lambda x, kernel: onednn.convolve(x, kernel, 1, 1))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda i: once(x[i % 8], kernels[i % 8]), range(64)))
    for i, made in enumerate(threaded):
        np.testing.assert_array_equal(made, mapped[i % 8])


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("processor", "AVX512-BF16"),
        ("compiler", "install g"),
        ("oneDNN", "pip install 'th_jax"),
        ("source", "failed: "),
    ],
)
def test_what_is_missing_is_named(
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    without: str,
    says: str,
) -> None:
    monkeypatch.setenv(command.VARIABLE, str(tmp_path / "compiled"))
    if without == "processor":
        monkeypatch.setattr(onednn, "processor_has", lambda flag: False)
    elif without == "compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
    elif without == "oneDNN":
        monkeypatch.setattr("sys.prefix", str(tmp_path))
    else:
        (tmp_path / "wrong.cc").write_text("int main( {")
        monkeypatch.setattr(onednn, "SOURCE", tmp_path / "wrong.cc")
    assert main(["kernels"]) == 1
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("kernels/*"))


def test_the_command_checks_what_it_compiled_and_later_commands_use_it(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(command.VARIABLE, str(library.parent.parent / "compiled"))
    monkeypatch.setattr(onednn, "compile_library", lambda path: None)  # it is there, by the fixture
    assert main(["kernels"]) == 0
    onednn.use_library(None)
    assert str(library) in capsys.readouterr().out
    assert library.parent.stat().st_mode & 0o777 == 0o700
    command.use_kernels()
    assert onednn.in_use() == (jax.local_device_count() == 1)

    monkeypatch.setenv(command.VARIABLE, str(tmp_path / "compiled"))
    damaged = tmp_path / "kernels" / onednn.library_name()
    damaged.parent.mkdir()
    damaged.write_text("not a library")
    with pytest.warns(RuntimeWarning, match="th-jax kernels"):
        command.use_kernels()
    assert not onednn.in_use()


def test_kernels_of_another_version_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv(command.VARIABLE, str(tmp_path / "compiled"))
    monkeypatch.setattr(onednn, "HEADER", tmp_path / "dnnl.hpp")
    command.use_kernels()
    (tmp_path / "kernels").mkdir(mode=0o700)
    (tmp_path / "kernels" / "onednn-0123456789abcdef.so").touch()
    command.use_kernels()
    assert not list(doctor._compiled())[1:]
    assert not recwarn.list, "an environment without the extra is content"
    onednn.HEADER.touch()
    with pytest.warns(RuntimeWarning, match="of another version .* run `th-jax kernels` again"):
        command.use_kernels()
    (finding,) = list(doctor._compiled())[1:]
    assert not finding.ok
    assert "run `th-jax kernels` again" in finding.text
    (tmp_path / "kernels" / onednn.library_name()).touch()
    (finding,) = list(doctor._compiled())[1:]
    assert finding.ok


def test_wrong_kernels_are_removed(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(command.VARIABLE, str(tmp_path / "compiled"))
    monkeypatch.setattr(onednn, "compile_library", lambda path: path.write_bytes(library.read_bytes()))
    monkeypatch.setattr(onednn, "convolve", lambda x, kernel, stride, pad: x)
    assert main(["kernels"]) == 1
    assert "wrong results" in capsys.readouterr().err
    assert not list(tmp_path.glob("kernels/*"))


def test_without_a_cache_folder_the_command_says_so(capsys: pytest.CaptureFixture) -> None:
    assert main(["kernels"]) == 2  # the tests' environment has the cache off
    assert command.VARIABLE in capsys.readouterr().err
    command.use_kernels()
    assert not onednn.in_use()
