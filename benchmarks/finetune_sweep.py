"""How rates and steps of fine-tuning fare on people that nobody trained on: one run a setting, for `th_jax.evaluation.curves`.

    make heads-validation
    python -m benchmarks.finetune_sweep --out runs/finetune_sweep --shots 8 \\
        --setting rate_1e-4 optimizers.synthesis.learning_rate=1e-4 --setting no_adversary adversary=0.0

    python -m benchmarks.finetune_sweep --out runs/fewshot --data bundled --split heldout --shots 8 --every 40 \\
        --setting heads
    python -m benchmarks.finetune_sweep --out runs/fewshot --table

Every person is fine-tuned on some frames and scored on others, feed-forward first and then every few steps. A setting is
changes of configs/finetune_heads.py. OUT/SETTING-SHOTS/metrics.jsonl has a line for each number of steps, and samples/ the
images of the first people; what is there is not done again. `--table` prints the first and the last line of each.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import th_jax
from configs import finetune_heads
from th_jax.data import VideoRecords
from th_jax.evaluation.heldout import baseline_frames, sample_grid
from th_jax.evaluation.people import LANDMARKS, HeldOut, load_heldout
from th_jax.evaluation.scores import heldout_scores, real_faces
from th_jax.losses import loss_preset
from th_jax.render import render
from th_jax.training.finetune import feed_forward
from th_jax.training.finetune_people import finetune_many
from th_jax.training.optimizers import Optimizers
from th_jax.training.run_log import RunLog, read_metrics
from th_jax.types import Avatar, Shots

_TARGETS = 4
_COLUMNS = {
    "l1/frame": "L1 frame", "l1/box": "L1 box", "ssim": "SSIM", "vgg16_distance": "VGG",
    "landmark_error/with_failures": "landmark error", "identity/l2/with_failures": "identity L2",
    "identity/centred_cosine/with_failures": "identity cosine",
}  # fmt: skip


def frames_by_step(meta: "th_jax.MetaModel", held: HeldOut, config: ConfigDict, *, every: int) -> dict[int, np.ndarray]:
    """Frames in the targets' places after 0 (feed-forward), `every`, 2 x `every`, ... steps: UInt8 `[I, S, H, W, 3]`."""
    drawn: dict[int, list[np.ndarray]] = {}

    def draw(step: int, avatar: Avatar, person: int) -> None:
        points = np.asarray(held.target_landmarks[person])
        drawn.setdefault(step, []).append(render(meta.networks, avatar, points, chunk=len(points)))

    def people() -> Iterator[tuple[str, Shots]]:
        for person, (frames, points) in enumerate(zip(held.source_frames, held.source_landmarks, strict=True)):
            shots = Shots(frames, points, np.ones(len(frames), np.float32))
            draw(0, feed_forward(meta.networks, meta.weights, shots), person)
            yield str(person), shots

    def observe(name: str, avatar: Avatar, metrics: dict[str, np.ndarray]) -> bool:
        draw(len(metrics["loss/generator"]), avatar, int(name))
        return False

    done = finetune_many(
        meta.networks, meta.weights, meta.perceptual, people(),
        epochs=config.epochs, loss_weights=loss_preset(**config.losses), adversary=config.adversary,
        discriminator_updates=config.discriminator_updates, averaging=config.averaging,
        optimizers=Optimizers.from_settings(config.optimizers), chunk_steps=every, observe=observe,
    )  # fmt: skip
    for person in done:
        print(f"{config.name}: person {int(person.name) + 1} of {len(held.source_frames)}", file=sys.stderr)
    return {step: np.stack(frames) for step, frames in drawn.items()}


def changed(changes: list[str]) -> ConfigDict:
    """The config with changes such as "adversary=0.0"."""
    config = finetune_heads.get_config()
    for change in changes:
        key, _, value = change.partition("=")
        config.update_from_flattened_dict({key: ast.literal_eval(value)})
    return config


def run(options: argparse.Namespace, name: str, changes: list[str], meta: "th_jax.MetaModel") -> None:
    """One setting."""
    folder = options.out / f"{name}-{options.shots}"
    if (folder / "metrics.jsonl").exists():
        return
    config = changed(changes)
    config.name = name
    records = VideoRecords(options.data, options.split)
    size = meta.networks.image_size
    held = load_heldout(
        records, image_size=size, people=options.people, sources=options.shots, targets=_TARGETS,
        landmarks=options.landmarks,
    )  # fmt: skip
    real = real_faces(held)

    def scores(kind: str, frames: np.ndarray) -> dict[str, float]:
        measured = heldout_scores(held, frames, perceptual=meta.perceptual, real=real)
        return {f"heldout/{kind}{measure}": value for measure, value in measured.items()}

    tables: list[tuple[int, dict[str, Any]]] = []
    made = sorted(frames_by_step(meta, held, config, every=options.every).items())
    for step, frames in made:
        tables.append((step, scores("", frames)))
        print(name, step, {key: round(tables[-1][1][f"heldout/{key}"], 4) for key in options.print})
    for kind in ("nearest_copy", "real"):
        tables[0][1].update(scores(f"{kind}/", baseline_frames(held, kind)))
    with RunLog(folder, total_steps=tables[-1][0], start_step=0, tensorboard=False, progress=False) as log:
        for (step, table), (_, frames) in zip(tables, made, strict=True):
            log.metrics(step, table)
            log.picture(step, "samples", sample_grid(held, frames))


def table(folder: Path) -> Iterator[str]:
    """Markdown: feed-forward, fine-tuned and copied frames of every setting and number of shots."""
    yield f"| shots | frames | {' | '.join(_COLUMNS.values())} |"
    yield f"|---:|---|{'---:|' * len(_COLUMNS)}"
    runs = sorted(folder.glob("*/metrics.jsonl"), key=lambda path: (int(path.parent.name.rpartition("-")[2]), path))
    for path in runs:
        lines, shots = read_metrics(path), path.parent.name.rpartition("-")[2]
        rows = [("feed-forward", lines[0], ""), (f"fine-tuned, {lines[-1]['step']} steps", lines[-1], "")]
        rows += [("nearest copy", lines[0], "nearest_copy/"), ("real", lines[0], "real/")]
        for name, line, kind in rows:
            numbers = [f"{line['heldout/' + kind + key]:.3f}" for key in _COLUMNS]
            yield f"| {shots} | {name} | {' | '.join(numbers)} |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_sweep")
    parser.add_argument("--meta", default="heads", help="released weights, a run, or a name")
    parser.add_argument("--data", default="runs/heads_validation", help="people that nobody trained on")
    parser.add_argument("--split", default="train")
    parser.add_argument("--people", type=int, help="the first so many")
    parser.add_argument("--landmarks", choices=LANDMARKS, default="true", help="of rendered heads; else detected")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--every", type=int, default=20, help="steps between two scorings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print what was measured and do nothing else")
    parser.add_argument("--setting", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--print", nargs="*", default=("l1/box", "vgg16_distance", "landmark_error/with_failures"))
    options = parser.parse_args()
    if options.table:
        print(*table(options.out), sep="\n")
        return 0
    jax.config.update("jax_default_matmul_precision", "high")
    meta = th_jax.load_meta(options.meta)
    for name, *changes in options.setting:
        run(options, name, changes, meta)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
