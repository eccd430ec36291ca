"""A small run of the protocol for tests: four bundled people, networks of 16 px, an arithmetic face detector."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

TEMPLATE = np.random.default_rng(3).uniform(0.2, 0.8, (68, 2)).astype(np.float32)
SIZE = 16


def fake_faces(frames: np.ndarray, *, descriptors: bool = True) -> Any:
    """Landmarks that depend on column brightness, descriptors of colors; a flat frame has no face."""
    from th_jax.evaluation.face_measures import FaceMeasures

    flat = frames.reshape(-1, *frames.shape[-3:]).astype(np.float32) / 255
    moved = TEMPLATE[None] + 0.05 * flat.mean((1, 2))[:, None, :2]
    colours = np.stack([np.resize(frame, 128) for frame in flat])
    unseen = flat.std((1, 2, 3)) < 0.02
    moved[unseen], colours[unseen] = np.nan, np.nan
    batch = frames.shape[:-3]
    return FaceMeasures(moved.reshape(*batch, 68, 2), colours.reshape(*batch, 128))


def colours_network() -> Any:
    """Replaces VGG16, which compiles for seconds: mean and deviation of each color, repeated four times."""
    from th_jax.evaluation.judges.sets import SetNetwork

    def features(frames: np.ndarray) -> np.ndarray:
        return np.tile(np.concatenate([frames.mean((1, 2)), frames.std((1, 2))], axis=1) / 255, 4).astype(np.float32)

    return SetNetwork("vgg16", features, 24, {"sha256": "5" * 64, "dimensions": 24})


def fake_fit(landmarks: np.ndarray, identity: object) -> Any:
    """Replaces the fit of a 3D face, whose loops run slowly without XLA's optimizations: the eyes' line gives the roll."""
    across = landmarks[:, 45] - landmarks[:, 36]
    roll = np.arctan2(across[:, 1], across[:, 0])
    return SimpleNamespace(angles=jnp.stack([0 * roll, 0 * roll, roll], axis=-1))


def use_fake_faces(patch: pytest.MonkeyPatch) -> None:
    """Replaces dlib, which needs half a second for an empty frame, and the 3D face."""
    from th_jax.cli import evaluate as command
    from th_jax.evaluation import scores
    from th_jax.evaluation.protocol import judges, judging, measure, run

    for module in (scores, judging, measure, run):
        patch.setattr(module, "measure_faces", fake_faces)
    patch.setattr(measure, "fit_identity", lambda known: None)
    patch.setattr(measure, "fit_frames", fake_fit)
    patch.setattr(command, "check_face_models", lambda: None)
    patch.setattr(judges, "vgg16_network", colours_network)


def quick_finetune(
    networks: Any, weights: Any, perceptual: Any, people: Any, *, observe: Any, epochs: int, **settings: Any
) -> Any:
    """Replaces `finetune_many`, whose program compiles longest: steps that add a little to every AdaIN parameter."""
    from th_jax.evaluation.protocol.run import _start
    from th_jax.training.finetune_people import FinishedPerson, fit_shots

    for name, shots in people:
        avatar = _start(networks, weights, fit_shots(networks, shots))
        for step in range(1, epochs + 1):
            avatar = avatar._replace(adain=avatar.adain + 0.1)
            metrics = {"loss/generator": np.ones(step, np.float32)}
            observe(name, avatar, metrics)
        yield FinishedPerson(name, jax.device_get(avatar), metrics)


def write_tiny(folder: Path) -> None:
    """tiny.safetensors and settings.json."""
    from th_jax.models.networks import Networks
    from th_jax.weights import save_meta

    networks = Networks(image_size=SIZE, base_width=4)
    save_meta(
        folder / "tiny.safetensors",
        networks=networks,
        weights=networks.init(jax.random.key(0)),
        perceptual=[],
        description={"name": "tiny", "steps": 1, "data": "none", "licence": "CC0-1.0"},
    )
    changes = {"preset": "heads", "epochs": 2, "losses": {"content": {}}, "rounds": {"chunk_steps": 1}}
    (folder / "settings.json").write_text(json.dumps(changes))


def arguments(folder: Path, out: str, *more: str, protocol: str = "heads") -> list[str]:
    """Options of the command, for four people with four held-out frames each."""
    return [
        "--meta", str(folder / "tiny.safetensors"), "--data", "bundled", "--protocol", protocol, "--people", "4",
        "--targets", "4", "--shots", "2", "3", "--settings", str(folder / "settings.json"), "--quiet",
        "--out", str(folder / out), *more,
    ]  # fmt: skip


def by_cell(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The entries of results.json by method and T."""
    cells = json.loads((out / "results.json").read_text())["cells"]
    return {(cell["method"], cell["shots"]): cell for cell in cells}


def measured(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The measures alone."""
    return {cell: said["measures"] for cell, said in by_cell(out).items()}
