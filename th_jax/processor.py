"""Instruction sets of this machine's processor."""

import functools
from pathlib import Path


@functools.cache
def processor_has(flag: str) -> bool:
    """Return whether the processor has an instruction set by Linux's name, such as "amx_bf16"; False on other systems."""
    try:
        return flag in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
