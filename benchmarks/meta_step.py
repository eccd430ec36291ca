"""The whole meta-learning step beside the same step in PyTorch, alternating in one run: `python -m benchmarks.meta_step`.

Two updates of D and W, one of E, G and P with all losses, Adam and the averaging; the paper's networks, VGG19 and VGGFace (of
random weights), float32, both sides with all cores and the same noise. `benchmarks.torch_meta_step` says what PyTorch's side
is; tests/training/test_torch_step.py holds both against each other. GFLOP/s are nominal: arithmetic as the paper writes its
layers, over th_jax's time.

    python -m benchmarks.meta_step [--image_sizes 64,256] [--rounds N] [--memory] [--bfloat16]

--bfloat16 lets both sides round the operands of products to bfloat16: matmul_precision="bfloat16", with the kernels of
`th-jax kernels` if they were compiled, beside PyTorch's autocast.
--memory measures instead, in a process of its own for each side, the most memory that is resident during a step.
"""

import argparse
import ctypes
import functools
import gc
import os
import re
from pathlib import Path

import jax
import torch

from benchmarks.alternating import HEADER, Program, compare, row
from benchmarks.compiled_step import CompiledStep
from benchmarks.networks import content_flop
from benchmarks.torch_meta_step import TorchBatch, TorchMetaStep, torch_batch
from data_prep.workers import Died, InvalidAnswer, run_in_processes
from th_jax.cli.kernels import use_kernels
from th_jax.losses import LossWeights
from th_jax.models import onednn
from th_jax.models.networks import Networks
from th_jax.models.summary import flop_counts
from th_jax.training.optimizers import Optimizers

SIDES = ("th_jax", "torch")


def step_flop(networks: Networks, *, sources: int, discriminator_updates: int = 2) -> float:
    """Nominal arithmetic of a step for one episode; a backward pass counts as two forward passes.

    E on K sources and G, forward and backward; D on two frames in each of its updates, forward and backward; then D and the
    frozen networks on the real frame, forward, and on the generated one, forward and back to the frame.
    """
    forward = flop_counts(networks)
    judged = forward["D"] + content_flop(networks.image_size)
    return 3 * (sources * forward["E"] + forward["G"] + 2 * discriminator_updates * forward["D"] + judged)


def torch_side(ours: CompiledStep) -> TorchMetaStep:
    """PyTorch's step from the same start."""
    return TorchMetaStep(ours.state, ours.perceptual, loss_weights=LossWeights(), optimizers=Optimizers())


def compare_at(image_size: int, *, base_width: int, sources: int, episodes: int, rounds: int, bfloat16: bool) -> None:
    """Print a line of the table."""
    networks = Networks(image_size=image_size, base_width=base_width)
    ours = CompiledStep(networks, episodes=episodes, sources=sources)
    theirs, batch = torch_side(ours), torch_batch(networks, ours.batch)
    ours.program  # noqa: B018 - compiled now, apart from the runs
    comparison = compare(ours, lambda: _run(theirs, batch, bfloat16=bfloat16), rounds=rounds)
    comparison = comparison._replace(compile_seconds=ours.compile_seconds)
    flop = episodes * step_flop(networks, sources=sources)
    name = f"{image_size} px, width {base_width}, K {sources}, batch {episodes}"
    print(row(name, comparison, flop=flop), flush=True)
    ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(comparison.ours, comparison.theirs, strict=True))
    print(f"    {flop / 1e9:,.0f} nominal GFLOP; ratios {ratios}", flush=True)


def print_memory(image_size: int, *, base_width: int, sources: int, episodes: int) -> None:
    """Print both sides' memory at one size."""
    from benchmarks import meta_step  # workers import functions by name, which the one that runs as a script has not

    for side in SIDES:
        task = (side, image_size, base_width, sources, episodes)
        ((_, told),) = run_in_processes(meta_step.measure_memory, [task], workers=1)
        if isinstance(told, Died | InvalidAnswer):
            raise SystemExit(f"the worker failed: {told}")
        before, peak, planned = told
        note = f", of its program by XLA's plan {planned / 2**30:.2f} GiB" if planned else ""
        print(
            f"{image_size} px, {side:6}: {before / 2**30:.2f} GiB before a step, {peak / 2**30:.2f} in it{note}",
            flush=True,
        )


def _run(step: TorchMetaStep, batch: TorchBatch, *, bfloat16: bool = False) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        step(batch)


def measure_memory(task: tuple[str, int, int, int, int]) -> tuple[int, int, int]:
    """Bytes before a step, at most in it, and as XLA plans them, of a side at one size; in a process of its own."""
    side, image_size, base_width, sources, episodes = task
    torch.set_num_threads(os.cpu_count() or 1)
    networks = Networks(image_size=image_size, base_width=base_width)
    ours = CompiledStep(networks, episodes=episodes, sources=sources)
    planned = ours.peak_bytes if side == "th_jax" else 0
    step: Program = ours
    if side == "torch":
        step = functools.partial(_run, torch_side(ours), torch_batch(networks, ours.batch))
        del ours
    for _ in range(2):
        step()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the greatest resident size is counted anew (Linux)
    before = _status("VmRSS")
    step()
    return before, _status("VmHWM"), planned


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found, "/proc/self/status is Linux's"
    return 1024 * int(found[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta_step")
    parser.add_argument("--image_sizes", default="64,256")
    parser.add_argument("--rounds", type=int, default=0, help="blocks of both sides (default: 5, above 128 px 3)")
    parser.add_argument("--base_width", type=int, default=64)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--bfloat16", action="store_true", help="products of bfloat16 on both sides")
    parser.add_argument("--cached", action="store_true", help="programs may come from the cache: no compile time then")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    jax.config.update("jax_enable_compilation_cache", options.cached or options.memory)
    sizes = list(map(int, options.image_sizes.split(",")))
    shape = {"base_width": options.base_width, "sources": options.sources, "episodes": options.batch_size}
    if options.memory:
        for size in sizes:
            print_memory(size, **shape)
        return
    kernels = "XLA's convolutions"
    if options.bfloat16:
        jax.config.update("jax_default_matmul_precision", "bfloat16")
        use_kernels()
        kernels = f"bfloat16, {'the compiled kernels' if onednn.in_use() else kernels}"
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, torch {torch.__version__}, {kernels}\n{HEADER}")
    for size in sizes:
        rounds = options.rounds or (3 if size > 128 else 5)
        compare_at(size, rounds=rounds, bfloat16=options.bfloat16, **shape)


if __name__ == "__main__":
    main()
