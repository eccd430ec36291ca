"""The accelerators and programs of docs/accelerators.md: published figures, and what lets compilers run without a device."""

import os
from typing import Any, NamedTuple

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84978434048
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 1 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


PROGRAMS = ("meta-step", "finetune-round", "generate")

VIDEOS = 145_569
"""VoxCeleb2's training videos (paper, section 4)."""

MOST_LOOKUPS = 8
"""A step gathers the episodes' row numbers once, and for each update of D looks rows up and gathers their gradients; the
generator's objective looks them up once more."""


class Accelerator(NamedTuple):
    """Published figures of one device, by second."""

    name: str
    bfloat16_flop: float
    float32_flop: float
    """Of products of float32 numbers at the configs' matmul precision "high": TF32, or three products in bfloat16."""
    memory_bytes: float
    memory_size: int
    link_bytes: float
    """To the other devices, in one direction."""
    source: str


H100 = Accelerator(
    "H100 SXM", 989e12, 494e12, 3.35e12, 80 * 10**9, 450e9, "NVIDIA's H100 data sheet, dense rates; NVLink"
)
V5E = Accelerator("TPU v5e", 197e12, 197e12 / 3, 819e9, 16 * 2**30, 200e9, "cloud.google.com/tpu/docs/v5e")
V5P = Accelerator("TPU v5p", 459e12, 459e12 / 3, 2765e9, 95 * 2**30, 600e9, "cloud.google.com/tpu/docs/v5p")
V6E = Accelerator("TPU v6e", 918e12, 918e12 / 3, 1640e9, 32 * 2**30, 448e9, "cloud.google.com/tpu/docs/v6e")


class Target(NamedTuple):
    """Devices that a program is compiled for."""

    accelerator: Accelerator
    devices: int
    platform: str
    topology: str


TARGETS = {
    "v5e-4": Target(V5E, 4, "tpu", "v5e:2x2"),
    "v5e-16": Target(V5E, 16, "tpu", "v5e:4x4"),
    "v5p-8": Target(V5P, 4, "tpu", "v5:2x2x1"),  # named after its cores; each device has two
    "v6e-8": Target(V6E, 8, "tpu", "v6e:2x4"),
    "h100-1": Target(H100, 1, "cuda", "1x1x1"),
    "h100-8": Target(H100, 8, "cuda", "1x1x8"),
}


def simulated_devices(target: Target) -> list[Any]:
    """Return devices that programs can be compiled for, not run on; needs an environment of `make accelerator-programs`."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    from jax.experimental import topologies

    if target.platform == "tpu":
        description = topologies.get_topology_desc(platform="tpu", topology_name=target.topology)
    else:
        description = topologies.get_topology_desc(
            platform="cuda", topology_name="", topology=target.topology, target_config=_H100
        )
    return list(description.devices)
