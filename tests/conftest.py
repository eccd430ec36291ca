"""What every test runs under: one CPU backend, exact products, ranks that must match."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from quick_programs import known_flags

os.environ["XLA_FLAGS"] = known_flags(os.environ.get("XLA_FLAGS", ""))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TH_JAX_COMPILE_CACHE", "off")  # commands would fill the user's

import jax
import numpy as np
import pytest

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def own_signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests write is signed with a key of their own, made once: the user's is neither made nor touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("TH_JAX_SIGNING_KEY", raising=False)
        patch.delenv("TH_JAX_SIGNING_CERTIFICATE", raising=False)
        yield


LONGEST = (
    *("test_train_script", "test_photo_heads", "test_meta_step", "test_sharding", "test_convolution", "test_networks"),
    *("test_finetune", "test_finetune_script", "test_golden_networks", "test_protocol", "test_verify_hostile"),
    *("test_finetune_many", "test_golden_steps", "test_pretrained", "test_build_shards", "test_enroll", "test_export"),
    *("test_finetune_person", "test_render_heads"),
)
"""Files that take longest, and so go first where `pytest -n` hands out files to workers.

The renderer's compiled functions are stored by the first file that draws heads; the next one then need not compile them.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


PROGRAMS = 300
"""Programs that a process keeps from one file of tests to the next: with a thousand, compiling another takes twice as long."""


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Forget the compiled programs of files that made many."""
    yield
    if compiled["programs"] > PROGRAMS:
        jax.clear_caches()
        compiled.clear()


compiled: Counter[str] = Counter()


def _count(event: str, seconds: float, **_: object) -> None:
    compiled["programs"] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


def pytest_collection_finish() -> None:
    """Search modules and collected tests for garbage no more, and the rest less often: a seventh of the time of tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Programs that run for a second need not be optimised for ten."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def small_vgg16(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, np.ndarray]]:
    """Layers of VGG16 with a few channels, blue first, so that files stay small."""
    from th_jax.perceptual import vgg  # here: imported with this file, it would escape the check of shapes

    monkeypatch.setattr(vgg, "CHANNELS", (2, 3, 4, 5, 6))
    rng = np.random.default_rng(0)
    return {
        name: {
            "kernel": rng.normal(size=shape).astype(np.float32),
            "bias": rng.normal(size=shape[-1:]).astype(np.float32),
        }
        for name, shape in vgg.layer_shapes("vgg16").items()
    }


@pytest.fixture(scope="session")
def base_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video of `base_clip.write_base_clip`: a talking face whose geometry, colors, timing and sound are known."""
    from base_clip import write_base_clip  # here: imported with this file, the package would escape the check of shapes

    return write_base_clip(tmp_path_factory.mktemp("base_clip") / "base.mp4")


@pytest.fixture(scope="session")
def rendered_faces() -> tuple[np.ndarray, np.ndarray]:
    """Points of 24 frames of each of two held-out rendered heads."""
    from data_prep.heads.identity import draw_identity
    from data_prep.heads.motion import talk
    from data_prep.heads.person import prepare
    from data_prep.heads.render import pose, true_landmarks

    clips = []
    for seed in (100_001, 100_007):
        person, motion = prepare(draw_identity(seed)), talk(seed, seconds=12.0, fps=2.0)
        states = [motion.state(moment) for moment in range(24)]
        clips.append(np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]))
    return clips[0].astype(np.float32), clips[1].astype(np.float32)
