"""Three steps of a tiny run on however many devices there are; run as a program, it prints what it saw as JSON."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent / "training"), str(Path(__file__).parent.parent)]


def main(process: int, processes: int, address: str) -> None:
    """Join the other processes, if there are any, and run."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, processes, process)
    print(json.dumps(run()), flush=True)


def run() -> dict[str, Any]:
    """Losses of three steps of descent, the number of traces, and a fingerprint of the state."""
    import jax
    from tiny_runs import VIDEOS, losses, networks, optimizers, tiny_batch

    from benchmarks.accelerator_programs import summed_bytes
    from benchmarks.program_text import Program, grouped
    from th_jax.perceptual import vgg
    from th_jax.storage.checkpoint_format import fingerprints, named_leaves
    from th_jax.training.dry_run import describe_run
    from th_jax.training.programs import MetaPrograms
    from th_jax.training.sharding import make_mesh, put_batch
    from th_jax.types import EpisodeBatch

    vgg.CHANNELS = (2, 3, 4, 5, 6)
    rng = np.random.default_rng(0)
    perceptual = {
        "vgg16": {
            name: {
                "kernel": rng.normal(size=shape, scale=0.3).astype(np.float32),
                "bias": np.zeros(shape[-1], np.float32),
            }
            for name, shape in vgg.layer_shapes("vgg16").items()
        }
    }
    mesh = make_mesh()
    programs = MetaPrograms(networks(), optimizers("sgd"), losses(), mesh, videos=VIDEOS)
    state = programs.begin(0)
    seen = []
    step = programs.step_at(0)
    for seed in range(3):
        whole = tiny_batch(seed=seed)
        mine = len(whole.video_index) // jax.process_count()
        part = slice(jax.process_index() * mine, (jax.process_index() + 1) * mine)
        state, metrics = step(state, perceptual, put_batch(mesh, EpisodeBatch(*(leaf[part] for leaf in whole))))
        seen.append({name: float(value) for name, value in metrics.items()})
    rows = state.table.rows
    shapes = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, whole))
    text = step.lower(state, perceptual, put_batch(mesh, EpisodeBatch(*(x[part] for x in whole)))).compile().as_text()
    program = Program(text)
    return {
        "devices": len(jax.devices()),
        "metrics": seen,
        "traces": step._cache_size(),
        "shard_rows": rows.addressable_shards[0].data.shape[0],
        "gathers_of_rows": sum(f"{rows.shape[0]},{rows.shape[1]}]" in line for line in _gathers(text)),
        "collectives": grouped(program.collectives()),
        "gradient_bytes": summed_bytes(state.weights),
        "arithmetic": describe_run(programs, shapes, perceptual=("vgg16",), steps=1).splitlines()[-1],
        "donated": program.aliased / len(jax.tree.leaves(state)),
        "fingerprints": fingerprints(named_leaves(state)),
    }


def _gathers(program: str) -> list[str]:
    return [line for line in program.splitlines() if "all-gather(" in line or "all-gather-start(" in line]


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
