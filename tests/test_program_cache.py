"""Programs are traced by the first process alone, and again after every change that matters."""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax import program_cache
from th_jax.program_cache import cached_jit, use_program_cache


class Pair(NamedTuple):
    key: Any
    parts: dict[str, Any]


class Doubler:
    """A function that counts how often it is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, pair: Pair, shift: Any) -> tuple[Pair, dict[str, Any]]:
        self.traces += 1
        noise = jax.random.normal(pair.key, (2,))
        return Pair(pair.key, {"x": pair.parts["x"] @ pair.parts["x"] + shift}), {"noise": noise}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    use_program_cache(tmp_path / "traced")
    yield tmp_path / "traced"
    use_program_cache(None)


def pair(size: int = 2) -> Pair:
    return Pair(jax.random.key(3), {"x": jnp.arange(size * size, dtype=jnp.float32).reshape(size, size)})


def run(key: str = "double", size: int = 2, **settings: Any) -> tuple[int, Any]:
    """Call a function as a new process would: how often it was traced, and its result."""
    function = Doubler()
    result = cached_jit(function, key=key, **settings)(pair(size), np.float32(1))
    return function.traces, result


def assert_equal(result: Any, wanted: Any) -> None:
    assert jax.tree.structure(result) == jax.tree.structure(wanted)
    np.testing.assert_array_equal(result[0].parts["x"], wanted[0].parts["x"])
    np.testing.assert_array_equal(jax.random.key_data(result[0].key), jax.random.key_data(wanted[0].key))
    np.testing.assert_array_equal(result[1]["noise"], wanted[1]["noise"])


def test_a_second_process_does_not_trace_and_gets_the_same(folder: Path) -> None:
    wanted = Doubler()(pair(), np.float32(1))
    first, second = run(), run()
    assert (first[0], second[0]) == (1, 0)
    assert_equal(first[1], wanted)
    assert_equal(second[1], wanted)
    assert len(list(folder.iterdir())) == 1


def test_one_process_looks_once_for_equal_shapes(folder: Path) -> None:
    function = Doubler()
    program = cached_jit(function, key="double")
    for size in (2, 2, 3, 2):
        program(pair(size), np.float32(1))
    assert function.traces == 2
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("change", ["key", "shape", "precision", "source", "donation", "version", "foreign"])
def test_whatever_changes_the_program_is_traced_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run()
    if change == "source":
        monkeypatch.setattr(program_cache, "source_digest", lambda: "another")
    if change == "foreign":
        monkeypatch.setattr(program_cache, "_foreign", ("kernels",))
    if change == "version":
        version = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda package: "0.0.1" if package == "optax" else version(package)
        )
    settings: dict[str, Any] = {
        "key": {"key": "another"},
        "shape": {"size": 3},
        "donation": {"donate_argnums": (0,)},
    }.get(change, {})
    with jax.default_matmul_precision("bfloat16") if change == "precision" else contextlib.nullcontext():
        assert run(**settings)[0] == 1
    assert len(list(folder.iterdir())) == 2


def test_a_type_that_the_callers_program_has_registered_is_stored_too(folder: Path) -> None:
    class Registered(NamedTuple):
        x: Any

    jax.export.register_namedtuple_serialization(Registered, serialized_name="another.name")
    program = cached_jit(lambda given: Registered(2 * given.x), key="registered")
    assert program(Registered(jnp.float32(2))).x == 4
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-1] + b"?", lambda data: b""])
def test_a_damaged_program_is_traced_and_stored_again(folder: Path, damage: Any) -> None:
    run()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert run()[0] == 1
    assert run()[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_donated_arguments_are_gone(folder: Path) -> None:
    for _ in range(2):
        given = pair()
        cached_jit(Doubler(), key="double", donate_argnums=(0,))(given, np.float32(1))
        assert given.parts["x"].is_deleted()


def test_without_a_folder_nothing_is_stored(tmp_path: Path) -> None:
    assert run()[0] == run()[0] == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program_cache, "_write", full)
    assert_equal(run()[1], Doubler()(pair(), np.float32(1)))


def test_the_programs_used_last_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_cache, "MAX_PROGRAMS", 2)
    moment = iter(range(100, 200))

    def tick() -> None:
        for file in folder.iterdir():
            if file not in seen:
                seen[file] = next(moment)
                program_cache.os.utime(file, (seen[file], seen[file]))

    seen: dict[Path, int] = {}
    for key in ("a", "b"):
        run(key)
        tick()
    run("a")  # used again: now newer than b
    run("c")
    assert [run(key)[0] for key in ("a", "c", "b")] == [0, 0, 1]


def test_inside_another_program_it_is_part_of_it(folder: Path) -> None:
    inner = cached_jit(Doubler(), key="double")
    assert_equal(jax.jit(lambda given: inner(given, np.float32(1)))(pair()), Doubler()(pair(), np.float32(1)))
    assert not list(folder.iterdir())


class Sum(NamedTuple):
    total: Any


def test_types_of_the_result_alone_are_named_by_the_caller(folder: Path) -> None:
    traces = []

    def summed(x: Any) -> Sum:
        traces.append(x)
        return Sum(x.sum())

    for _ in range(2):
        assert cached_jit(summed, key="sum", like=Sum(None))(np.arange(4.0, dtype=np.float32)) == Sum(6.0)
    assert len(traces) == 1
