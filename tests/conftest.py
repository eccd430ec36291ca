"""What every test runs under: one CPU backend, exact products, ranks that must match."""

import os
from collections.abc import Iterator
from pathlib import Path

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
    *("test_train_script", "test_meta_step", "test_sharding", "test_finetune_script", "test_protocol", "test_networks"),
    *("test_enroll", "test_export", "test_build_shards", "test_finetune", "test_finetune_many", "test_finetune_person"),
)
"""Files that take longest, and so go first where `pytest -n` hands out files to workers."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


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
