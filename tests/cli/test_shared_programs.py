"""Compiled programs that hosts share: a second process loads what the first compiled, and never those of other settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from th_jax.cli.compile_cache import SharedPrograms
from th_jax.cli.main import main

PROGRAM = """
import sys
import jax
import jax.numpy as jnp
from th_jax.cli.compile_cache import SharedPrograms

programs = SharedPrograms(sys.argv[1])
jax.config.update("jax_default_matmul_precision", sys.argv[2])
x = jnp.ones((64, 64))
programs.counts.clear()
print(float(jax.jit(lambda a: (a @ a).sum())(x)))
print(programs)
"""


def host(place: Path, precision: str) -> str:
    """Output of one process."""
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place), precision],
        env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return made.stdout


def test_a_second_host_loads_what_the_first_compiled(tmp_path: Path) -> None:
    place = tmp_path / "programs"
    assert host(place, "highest") == f"262144.0\nprograms in {place}: 0 loaded, 1 compiled\n"
    assert place.stat().st_mode & 0o077 == 0
    assert host(place, "highest") == f"262144.0\nprograms in {place}: 1 loaded, 0 compiled\n"
    assert host(place, "bfloat16") == f"262144.0\nprograms in {place}: 0 loaded, 1 compiled\n"
    for file in place.glob("*-cache"):
        file.write_bytes(b"damaged")
    assert host(place, "highest") == f"262144.0\nprograms in {place}: 0 loaded, 1 compiled\n"


def test_places_that_cannot_serve_are_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file cannot be a folder of compiled programs"):
        SharedPrograms(str(tmp_path / "file"))
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ValueError, match=r"others can write to .*shared, and could replace compiled programs"):
        SharedPrograms(str(shared))
    assert shared.stat().st_mode & 0o777 == 0o777, "the user's folder stays as it is"
    with pytest.raises(ValueError, match="compiled programs cannot be stored at nowhere://bucket/programs"):
        SharedPrograms("nowhere://bucket/programs")
    given = ["train", "--config", "tests/tiny_experiment.py", "--workdir", str(tmp_path / "run")]
    assert main([*given, "--aot", str(tmp_path / "file")]) == 1
    assert "file cannot be a folder of compiled programs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*given, "--aot", str(tmp_path / "new"), "--dry-run"]) == 2
    assert "--aot is for runs" in capsys.readouterr().err
