"""`th-jax teach`: teaches E the identities of a data set, before meta-learning goes on (docs/training.md)."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "teach",
        "Teaches the embedder the identities of a data set, by a face network, and writes weights to start training from.",
        example="th-jax teach --meta heads --data runs/heads --out runs/taught.safetensors",
    )
    made.add_argument("--meta", required=True, help="run's workdir, released file, or bundled name such as heads")
    made.add_argument("--data", required=True, help="data set of rendered people, with the splits train and heldout")
    made.add_argument("--steps", type=int, default=2500, help="steps of 64 frames")
    made.add_argument("--learning-rate", type=float, default=1e-3, help="at the first step; it falls to 0")
    made.add_argument("--components", type=int, default=128, help="numbers that E learns of each person")
    made.add_argument("--seed", type=int, default=0, help="seed of the episodes")
    made.add_argument("--out", type=Path, required=True, help="output file, ending in .safetensors")
    return made


def run(options: argparse.Namespace) -> int:
    """Teach E, and write the weights in float32."""
    import jax

    from th_jax.storage.files import check_place
    from th_jax.training.teach_run import teach
    from th_jax.weights import load_meta, save_meta

    check_place(options.out)
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    meta = load_meta(options.meta, only_generate=True)
    settings = {name: getattr(options, name) for name in ("steps", "learning_rate", "components", "seed")}
    weights = teach(meta, options.data, **settings, on_message=lambda text: print(text, flush=True))
    about = meta.description
    digest = save_meta(
        options.out,
        networks=meta.networks,
        weights=weights,
        perceptual=tuple(about["perceptual"]),
        description={
            "name": f"{about['name']}_taught",
            "steps": about["steps"],
            "data": Path(options.data).name,
            "licence": about.get("licence", "as the weights it started from"),
            "taught": settings,
        },
        dtype="float32",
    )
    print(f"{options.out}  sha256 {digest}")
    return DONE
