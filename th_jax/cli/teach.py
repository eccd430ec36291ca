"""`th-jax teach`: distills a face network's identity features into E, before meta-learning goes on (docs/training.md)."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "teach",
        "Distills the identity features of a face network into the embedder, and writes weights to start meta-learning from.",
        example="th-jax teach --meta heads --data runs/heads --out runs/taught.safetensors",
    )
    made.add_argument("--meta", required=True, help="run's workdir, released file, or bundled name such as heads")
    made.add_argument("--data", required=True, help="data set of rendered people, with the splits train and heldout")
    made.add_argument("--steps", type=int, default=2500, help="training steps, each of 16 people x 4 frames")
    made.add_argument("--learning-rate", type=float, default=1e-3, help="at the first step; it falls to 0")
    made.add_argument(
        "--components", type=int, default=128, help="number of principal components of the face features to predict"
    )
    made.add_argument("--seed", type=int, default=0, help="seed of the episodes")
    made.add_argument("--out", type=Path, required=True, help="output file, ending in .safetensors")
    return made


def run(options: argparse.Namespace) -> int:
    """Teach E, and write the weights in float32; everything that can be wrong is found before."""
    import jax

    from th_jax.data.records import data_folder
    from th_jax.data.video_list import load_video_list
    from th_jax.storage.files import check_place
    from th_jax.training.teach_run import teach
    from th_jax.weights import load_meta, released_description, save_meta

    check_place(options.out)
    meta = load_meta(options.meta, only_generate=True)
    about, networks = meta.description, meta.networks
    perceptual = tuple(about["perceptual"])
    settings = {name: getattr(options, name) for name in ("steps", "learning_rate", "components", "seed")}
    videos = load_video_list(data_folder(options.data))
    data = f"{videos.name}, {len(videos.entries('train'))} videos"
    description = {
        "name": f"{about['name']}_taught",
        "steps": about.get("steps", 0),
        "data": f"{about.get('data', 'not recorded')}; E also learned from {data}",
        "licence": about.get("licence", "as the weights it started from"),
        "taught": settings | {"from": {"name": about["name"], "digest": meta.digest}, "data": data},
    }
    released_description(
        options.out, networks=networks, perceptual=perceptual, description=description, dtype="float32"
    )
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    weights = teach(meta, options.data, **settings, on_message=lambda text: print(text, flush=True))
    digest = save_meta(
        options.out, networks=networks, weights=weights, perceptual=perceptual, description=description, dtype="float32"
    )
    print(f"{options.out}  sha256 {digest}")
    return DONE
