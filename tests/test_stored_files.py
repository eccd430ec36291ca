"""Files that earlier versions wrote: they load, and give the numbers that the version that wrote them computed.

`tests/stored/before_packages`: meta weights after four steps of `tests/tiny_experiment.py`, their run folder, avatars of the
bundled portrait of these weights (fine-tuned, feed-forward, compact) with its consent record, and frames that the version
rendered of them.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import th_jax
from th_jax.avatars.file import load_avatar, read_description
from th_jax.consent import FACTS, ConsentFacts, facts_of, read_consent
from th_jax.render import render
from th_jax.storage.checkpoints import Checkpoints
from th_jax.storage.run_folder import read_config

STORED = Path(__file__).parent / "stored" / "before_packages"


@pytest.mark.parametrize("kind", ["full", "feed", "compact"])
def test_avatars_render_what_they_rendered(kind: str) -> None:
    loaded = load_avatar(
        STORED / f"avatars/{kind}.safetensors", meta=None if kind == "full" else STORED / "tiny.safetensors"
    )
    with np.load(STORED / "frames.npz") as frames:
        now = render(loaded.networks, loaded.avatar, frames["points"]).astype(int)
        assert np.abs(now - frames[kind]).max() <= 1  # 0..255
        assert frames[kind].std() > 5
    assert loaded.landmarks is not None


def test_released_weights_and_their_run_are_the_same() -> None:
    released, run = th_jax.load_meta(STORED / "tiny.safetensors"), th_jax.load_meta(STORED / "run")
    assert released.networks == run.networks
    params = [
        [network.params for network in meta.weights] for meta in (released, run)
    ]  # u and v are fitted at a release
    for one, other in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)  # released in float16


def test_a_run_goes_on_with_the_settings_names_of_its_time() -> None:
    assert "stop_after_skips" in json.loads((STORED / "run/config.json").read_text())
    config = read_config(STORED / "run")
    assert config["max_consecutive_nonfinite_steps"] == 3
    with Checkpoints(f"{STORED}/run/checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 4


def test_consent_records() -> None:
    """The avatars store the record's digest twice, in their provenance and beside the other facts."""
    record = read_consent(STORED / "astronaut.consent.json")
    assert (record.subject, record.digest[:12]) == ("astronaut", "a75b6711d21e")
    for path in sorted(STORED.glob("avatars/*.safetensors")):
        description = read_description(path)
        assert description[FACTS]["digest"] == record.digest
        assert facts_of(description) == ConsentFacts.of(record)
