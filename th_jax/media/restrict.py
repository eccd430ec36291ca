"""What a decoding process gives up before it reads its first file: the user's environment, the network, and other programs.

Linux can take these rights from a process: network namespaces, where the system allows them, and a filter of
system calls (seccomp). `in_force` says what is in force; `docs/hostile-files.md` says what is left.
"""

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping

NETWORK, PROGRAMS = "no network", "no way to start programs or open sockets"

_KEPT_PREFIXES = ("TH_JAX_", "JAX_", "XLA_", "TF_", "CUDA_", "OMP_", "MALLOC_", "PYTHON", "LC_")
_KEPT = {
    *("PATH", "LANG", "TMPDIR", "TEMP", "TMP", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "HOME"),
    *("XDG_CACHE_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "USERPROFILE"),
}
"""Variables that libraries need to work: paths of programs, temporary files and caches."""

_SECRETS = ("PASSWORD", "TOKEN", "SECRET", "KEY")

_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000
"""CLONE_NEWNET and CLONE_NEWUSER."""

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
"""PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP and SECCOMP_MODE_FILTER."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_DENIED: dict[str, tuple[int, int]] = {
    **{"socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202)},
    **{"accept4": (288, 242), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438)},
    **{"pidfd_send_signal": (424, 424), "kill": (62, 129), "mount": (165, 40), "umount2": (166, 39)},
    **{"pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280)},
    **{"perf_event_open": (298, 241), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104)},
    **{"userfaultfd": (323, 282), "io_uring_setup": (425, 425), "open_by_handle_at": (304, 265)},
}
"""Refused system calls, with their numbers on x86-64 and on ARM64. io_uring would otherwise open sockets by itself."""

_IN_FORCE: list[str] = []

_X32 = 0x40000000
"""First number of x86-64's second table of system calls, all of which are refused."""


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a child process gets: neither keys nor passwords, nor anything that it has no use for."""
    return {
        name: value
        for name, value in environment.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES)) and not any(word in name for word in _SECRETS)
    }


def restrict() -> None:
    """Take the network and other programs from this process, as far as the system allows; files stay as they are.

    It is called before the process has a second thread. Most Linux systems allow both, others nothing.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    _IN_FORCE[:] = [
        name for name, take in ((NETWORK, _leave_network), (PROGRAMS, _filter_system_calls)) if take(library)
    ]


def in_force() -> list[str]:
    """Return what `restrict` has taken from this process, of `NETWORK` and `PROGRAMS`."""
    return list(_IN_FORCE)


def _leave_network(library: ctypes.CDLL) -> bool:
    """Move to a network without interfaces; an ordinary user needs a user namespace for it, in which they stay themselves."""
    user, group = os.geteuid(), os.getegid()
    if library.unshare(_NEW_NETWORK) == 0:
        return True
    if user == 0 or library.unshare(_NEW_USER | _NEW_NETWORK) != 0:
        return False
    with contextlib.suppress(OSError):
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
    return True


def _filter_system_calls(library: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        return False
    program = filter_program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return bool(library.prctl(_SET_SECCOMP, _FILTER, header, 0, 0) == 0)


def filter_program(machine: str) -> bytes:
    """Return the filter of system calls in instructions of the Berkeley Packet Filter.

    Calls of another architecture's or width's table and those of the list fail with EPERM.

    Args:
        machine: "x86_64" or "aarch64".

    Returns:
        Eight bytes an instruction: code, jumps if true and false, and a number.
    """
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    numbers = sorted(pair[machine == "aarch64"] for pair in _DENIED.values())
    code = [(load, 0, 0, 4), (equal, 0, len(numbers) + 3, _ARCHITECTURES[machine]), (load, 0, 0, 0)]
    code += [(at_least, len(numbers) + 1, 0, _X32)]
    code += [(equal, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    code += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
