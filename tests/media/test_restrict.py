"""A process that decodes has neither the user's environment, nor the network, nor other programs."""

import contextlib
import errno
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from th_jax.media import restrict
from th_jax.media.isolation import run_limited, stream_limited
from th_jax.media.restrict import NETWORK, PROGRAMS, filter_program, in_force, kept_environment

ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def tried(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def connect(port: int) -> str:
    return tried(lambda: socket.create_connection(("127.0.0.1", port), timeout=5))


def interfaces() -> list[str]:
    """Return the names of the network's interfaces that are up, from the kernel."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def start_program() -> str:
    return tried(lambda: subprocess.run([sys.executable, "-c", ""], check=True))


def signal_caller() -> str:
    return tried(lambda: os.kill(os.getppid(), 0))


def open_local_socket() -> str:
    return tried(lambda: socket.socket(socket.AF_UNIX))


def write_and_read(path: str) -> str:
    Path(path).write_text("a file")
    return Path(path).read_text()


def environment() -> Iterator[list[str]]:
    yield list(os.environ)


@pytest.fixture(scope="module")
def taken() -> list[str]:
    return list(run_limited(in_force))


def test_linux_takes_both_rights(taken: list[str]) -> None:
    """Where this suite runs; elsewhere th-jax doctor says what is missing."""
    if sys.platform != "linux":
        assert taken == []
        pytest.skip("only Linux takes rights from a process")
    assert PROGRAMS in taken
    assert set(taken) <= {NETWORK, PROGRAMS}


def test_nothing_is_reached_by_the_network(taken: list[str]) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        assert connect(server.getsockname()[1]) == "done", "from this process"
        if PROGRAMS not in taken:
            pytest.skip("no filter of system calls here")
        assert run_limited(connect, server.getsockname()[1]) == "EPERM"
    assert run_limited(open_local_socket) == "EPERM"
    if NETWORK in taken:
        assert run_limited(interfaces) in (["lo"], [])


def test_no_program_is_started_and_no_process_signaled(taken: list[str]) -> None:
    if PROGRAMS not in taken:
        pytest.skip("no filter of system calls here")
    assert start_program() == "done", "from this process"
    assert run_limited(start_program) == "EPERM"
    assert run_limited(signal_caller) == "EPERM"


def test_files_are_read_and_written_as_before(tmp_path: Path) -> None:
    assert run_limited(write_and_read, str(tmp_path / "a.txt")) == "a file"
    assert (tmp_path / "a.txt").stat().st_uid == os.geteuid()


def test_the_environment_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"AWS_ACCESS_KEY_ID": "a", "HTTPS_PROXY": "b", "TH_JAX_STUDIO_PASSWORD": "c", "TH_JAX_WEIGHTS": "/d"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (names,) = stream_limited(environment)
    assert not {"AWS_ACCESS_KEY_ID", "HTTPS_PROXY", "TH_JAX_STUDIO_PASSWORD"} & set(names)
    assert {"TH_JAX_WEIGHTS", "PATH", "PYTHONPATH"} <= set(names)


def test_variables_of_libraries_are_kept() -> None:
    kept = {"PATH": "/bin", "LANG": "C", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--a", "TH_JAX_LANDMARK_MODEL": "heads"}
    lost = {"GITHUB_TOKEN": "a", "JAX_API_KEY": "b", "USER": "ada", "LD_PRELOAD": "c", "SSH_AUTH_SOCK": "d"}
    assert kept_environment(kept | lost) == kept


def outcome(machine: str, call: int, *, architecture: int | None = None) -> int:
    """Run the filter as the kernel does."""
    words = {0: call, 4: ARCHITECTURES[machine] if architecture is None else architecture}
    code = [*struct.iter_unpack("HBBI", filter_program(machine))]
    place = accumulator = 0
    while True:
        instruction, if_true, if_false, number = code[place]
        place += 1
        match instruction:
            case 0x20:
                accumulator = words[number]
            case 0x15:
                place += if_true if accumulator == number else if_false
            case 0x35:
                place += if_true if accumulator >= number else if_false
            case 0x06:
                return int(number)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_refuses_its_list_and_no_other_call(machine: str) -> None:
    denied = {pair[machine == "aarch64"] for pair in restrict._DENIED.values()}
    assert {call for call in range(600) if outcome(machine, call) == REFUSE} == denied
    assert {outcome(machine, call) for call in range(600) if call not in denied} == {ALLOW}
    assert outcome(machine, restrict._X32 + 1) == REFUSE
    assert outcome(machine, 1, architecture=0x40000003) == REFUSE, "calls of 32-bit x86 have other numbers"


@pytest.mark.parametrize(
    ("place", "headers"),
    [
        (0, ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]),
        (1, ["/usr/include/asm-generic/unistd.h"]),
    ],
)
def test_the_numbers_are_the_kernels(place: int, headers: list[str]) -> None:
    found = [Path(header) for header in headers if Path(header).exists()]
    if not found:
        pytest.skip("the kernel's headers are not installed")
    defined = re.findall(r"#define __NR3?(?:264)?_(\w+)\s+(\d+)", found[0].read_text())
    numbers = {name: int(number) for name, number in defined}
    assert {name: numbers[name] for name in restrict._DENIED} == {
        name: pair[place] for name, pair in restrict._DENIED.items()
    }
