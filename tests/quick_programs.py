"""Flags of XLA for programs that run for a second and need not be compiled for ten; `make test` sets the same."""

from importlib import metadata

_OLD_FLAG = "--xla_cpu_use_fusion_emitters=false"


def known_flags(flags: str) -> str:
    """Leave out what XLA no longer knows from jaxlib 0.11 on: an unknown flag ends the process."""
    new = tuple(map(int, metadata.version("jaxlib").split(".")[:2])) >= (0, 11)
    return flags.replace(_OLD_FLAG, "") if new else flags


XLA_FLAGS = known_flags(
    f"--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true {_OLD_FLAG}"
    " --xla_cpu_parallel_codegen_split_count=1"
)
