"""Checkpoints: atomic saves, exact restores, and no silent corruption."""

import gc
import json
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import ABOUT, assert_same_bits, shapes_of, state_of, three_in

from th_jax.storage.checkpoint_format import _digest
from th_jax.storage.checkpoints import SCORE, CheckpointError, Checkpoints


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1, 2 and 3."""
    return three_in(tmp_path)


def test_state_and_description_round_trip(three: Path) -> None:
    with Checkpoints(three) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
        assert checkpoints.latest_step() == 3
        state, description = checkpoints.restore(shapes_of(state_of(0)))
        assert_same_bits(state, state_of(3))
        assert_same_bits(checkpoints.restore(shapes_of(state_of(0)), step=1)[0], state_of(1))
        assert description == checkpoints.describe()
    assert {key: description[key] for key in ABOUT} == ABOUT
    assert (description["format"], description["schema"], description["step"]) == ("th_jax.checkpoint", 1, 3)
    kernel = description["leaves"]["weights/params/kernel"]
    assert (kernel["shape"], kernel["dtype"]) == ([3, 3, 4, 16], "float32")


def test_some_leaves_are_read_alone(three: Path) -> None:
    with Checkpoints(three, read_only=True) as checkpoints:
        leaves, _ = checkpoints.read(["weights/params/k", "step"], step=2)
        assert set(leaves) == {"weights/params/kernel", "step"}
        np.testing.assert_array_equal(leaves["weights/params/kernel"], state_of(2).weights.params["kernel"])
        with pytest.raises(CheckpointError, match=r"of step 3 in .* has no leaf averaged/"):
            checkpoints.read(["averaged/"])


def test_saved_state_may_be_donated_at_once(tmp_path: Path) -> None:
    big = {"a": jnp.arange(2_000_000, dtype=jnp.float32), "b": jnp.ones((64, 64))}
    wanted = jax.tree.map(np.array, big)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: -x - 1, tree), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, big, description={})
        for _ in range(3):
            big = overwrite(big)
        jax.block_until_ready(big)
        state, _ = checkpoints.restore(big)
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(state[name], leaf)


def alterations(folder: Path, places: int, seed: int) -> list[tuple[Path, bytes | None]]:
    """Files with flipped bytes, truncated, emptied, and missing (None)."""
    rng = np.random.default_rng(seed)
    found: list[tuple[Path, bytes | None]] = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        whole = path.read_bytes()
        found += [(path, None), (path, b""), (path, whole[: len(whole) // 2])]
        for place in rng.integers(0, len(whole), places):
            content = bytearray(whole)
            content[place] ^= 1 << int(rng.integers(8))
            found.append((path, bytes(content)))
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves reads unawaited
@pytest.mark.parametrize("places", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_altered_files_are_detected_or_change_nothing(three: Path, places: int) -> None:
    shapes, wanted, refused = shapes_of(state_of(0)), state_of(3), 0
    cases = alterations(three / "00000003", places, seed=places)
    for path, content in cases:
        whole = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with Checkpoints(three, read_only=True) as checkpoints:
            try:
                assert_same_bits(checkpoints.restore(shapes)[0], wanted)
            except CheckpointError as error:
                refused += 1
                assert "step 3 in" in str(error)  # noqa: PT017 - what is not raised must be equal
                assert "is damaged" in str(error)  # noqa: PT017
                assert "the one of step 2 is intact: move the later folders" in str(error)  # noqa: PT017
        path.write_bytes(whole)
    gc.collect()
    assert refused > len(cases) / 4, "some bytes are read by nobody; too many would mean that nothing is checked"
    with Checkpoints(three, read_only=True) as checkpoints:
        assert_same_bits(checkpoints.restore(shapes)[0], wanted)


def test_damage_without_another_checkpoint(three: Path) -> None:
    for step in (1, 2):
        shutil.rmtree(three / f"{step:08d}" / "state")
    (three / "00000003" / "description" / "metadata").write_text("{}")
    with Checkpoints(three) as checkpoints:
        with pytest.raises(CheckpointError, match=r"does not match its checksum; none of the others .* \(2, 1\)"):
            checkpoints.restore(shapes_of(state_of(0)))
        checkpoints.drop_after(2)
        shutil.rmtree(three / "00000001")
    with (
        Checkpoints(three, read_only=True) as checkpoints,
        pytest.raises(CheckpointError, match=r"of step 2 .* is damaged: .*; there is no other one"),
    ):
        checkpoints.restore(shapes_of(state_of(0)))


def test_missing_checkpoints(tmp_path: Path, three: Path) -> None:
    for read_only in (True, False):
        with Checkpoints(tmp_path / "new", read_only=read_only) as checkpoints:
            assert (tmp_path / "new").exists() is not read_only
            assert checkpoints.latest_step() is None
            with pytest.raises(CheckpointError, match=r"there are no checkpoints in .*new"):
                checkpoints.restore(shapes_of(state_of(0)))
    with (
        Checkpoints(three) as checkpoints,
        pytest.raises(CheckpointError, match="no checkpoint of step 7; it has 1, 2, 3"),
    ):
        checkpoints.describe(step=7)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file is a file"):
        Checkpoints(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"cannot use .*/file/below .*Not a directory"):
        Checkpoints(tmp_path / "file" / "below")


def test_state_of_another_shape(three: Path) -> None:
    with Checkpoints(three) as checkpoints:
        message = (
            r"different state: its leaf weights/params/kernel is float32\[3, 3, 4, 16\], but this "
            r"run's is float32\[3, 3, 4, 8\]; probably networks.base_width, .*'base_width': 4"
        )
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(shapes_of(state_of(0, width=8)))
        less = shapes_of(state_of(0))
        del less.weights.params["half"]
        with pytest.raises(CheckpointError, match=r"half is bfloat16\[5\], but this run's is missing"):
            checkpoints.restore(less)


def rewrite(three: Path, **changes: object) -> None:
    """Change the newest description and its checksum, as another version would have written it."""
    path = three / "00000003" / "description" / "metadata"
    record = json.loads(path.read_text()) | changes
    del record["sha256"]
    path.write_text(json.dumps(record | {"sha256": _digest(record)}))


def test_a_leaf_read_alone_is_held_against_its_checksum(three: Path) -> None:
    leaves = json.loads((three / "00000003" / "description" / "metadata").read_text())["leaves"]
    leaves["step"]["fingerprint"] ^= 1
    rewrite(three, leaves=leaves)
    with Checkpoints(three, read_only=True) as checkpoints:
        checkpoints.read(["table"])
        with pytest.raises(CheckpointError, match="leaf step does not match its checksum"):
            checkpoints.read(["step"], step=3)
        assert checkpoints.read(["step"])[1]["step"] == 2, "without a step, those of the newest whole one"


def test_another_schema_and_another_step(three: Path) -> None:
    rewrite(three, schema=2)
    with Checkpoints(three) as checkpoints:
        with pytest.raises(
            CheckpointError, match=r"'th_jax.checkpoint' with schema 2, but th_jax .* reads .* schema 1"
        ):
            checkpoints.restore(shapes_of(state_of(0)))
        rewrite(three, schema=1, step=2)
        with pytest.raises(CheckpointError, match="is damaged: its description is that of step 2"):
            checkpoints.describe()


def test_the_last_ones_stay(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2, asynchronous=False) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, {"x": jnp.full((3,), float(step))}, description={})
        assert checkpoints.steps() == [6, 7]
    for wrong in ({"keep": 0}, {"keep_hours": -1}, {"keep_hours": float("nan")}):
        with pytest.raises(CheckpointError, match="keep must be at least 1 and keep_hours at least 0, got"):
            Checkpoints(tmp_path, **wrong)


def test_the_best_one_stays_also_in_a_process_that_did_not_save_it(tmp_path: Path) -> None:
    scores = {1: 0.5, 2: 0.2, 3: None, 4: 0.3, 5: float("nan"), 6: 0.2, 7: None}
    for steps in ((1, 2, 3), (4, 5, 6, 7)):
        with Checkpoints(tmp_path, keep=1, keep_best=True, asynchronous=False) as checkpoints:
            for step in steps:
                score = {} if scores[step] is None or scores[step] != scores[step] else {SCORE: scores[step]}
                checkpoints.save(step, {"x": jnp.zeros(2)}, description=score)
            assert checkpoints.steps() == sorted({2, steps[-1]})
    with Checkpoints(tmp_path, keep=1, keep_best=True, asynchronous=False) as checkpoints:
        checkpoints.save(8, {"x": jnp.zeros(2)}, description={SCORE: 0.1})
        checkpoints.save(9, {"x": jnp.zeros(2)}, description={})
        assert checkpoints.steps() == [8, 9]


def test_one_of_every_few_hours_stays(tmp_path: Path) -> None:
    for step in range(7):
        with Checkpoints(tmp_path, keep=1, keep_hours=2, asynchronous=False) as checkpoints:
            checkpoints.save(step, {"x": jnp.zeros(2)}, description={})
        path = tmp_path / f"{step:08d}" / "_CHECKPOINT_METADATA"
        committed = {"commit_timestamp_nsecs": (1_000_000 + 3600 * step) * 10**9}
        path.write_text(json.dumps(json.loads(path.read_text()) | committed))
    with Checkpoints(tmp_path, keep=1, keep_hours=2, asynchronous=False) as checkpoints:
        checkpoints.save(8, {"x": jnp.zeros(2)}, description={})
        assert checkpoints.steps() == [0, 2, 4, 6, 8]


def test_saving_a_step_again(three: Path) -> None:
    with Checkpoints(three) as checkpoints:
        assert not checkpoints.save(3, state_of(9), description=ABOUT)
        assert_same_bits(checkpoints.restore(shapes_of(state_of(0)))[0], state_of(3))
        with pytest.raises(CheckpointError, match=r"later than step 1 \(2, 3\): .*drop_after\(1\)"):
            checkpoints.save(1, state_of(1), description=ABOUT)
        assert checkpoints.drop_after(1) == [2, 3]
        assert checkpoints.steps() == [1]
        assert checkpoints.save(2, state_of(8), description=ABOUT)


def test_half_written_checkpoints_are_invisible_and_cleaned(three: Path) -> None:
    half = three / "00000004.orbax-checkpoint-tmp"
    shutil.copytree(three / "00000003", half)
    shutil.rmtree(half / "description")
    with Checkpoints(three, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 3
    assert half.exists(), "a reader never cleans up"
    with Checkpoints(three) as checkpoints:
        assert checkpoints.latest_step() == 3
        checkpoints.save(5, state_of(5), description=ABOUT)
    assert not half.exists()


def test_invalid_states_and_descriptions(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        for leaf, what in ((3, "int"), ("x", "str")):
            with pytest.raises(CheckpointError, match=f"its leaf a/b is a {what}"):
                checkpoints.save(1, {"a": {"b": leaf}}, description={})
        with pytest.raises(CheckpointError, match="leaf a has the type object"):
            checkpoints.save(1, {"a": np.array(["x"], object)}, description={})
        with pytest.raises(CheckpointError, match="the leaf key is a typed key"):
            checkpoints.save(1, {"key": jax.random.key(0)}, description={})
        with pytest.raises(CheckpointError, match="must be unique"):
            checkpoints.save(1, {"a": {"b": jnp.ones(2)}, "a/b": jnp.ones(2)}, description={})
        with pytest.raises(CheckpointError, match="must be JSON values"):
            checkpoints.save(1, {"a": jnp.ones(2)}, description={"config": {"rate": float("nan")}})
        with pytest.raises(CheckpointError, match=r"reserved keys .*: leaves, step"):
            checkpoints.save(1, {"a": jnp.ones(2)}, description={"step": 1, "leaves": {}})
        assert checkpoints.steps() == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_write_errors(tmp_path: Path, asynchronous: bool) -> None:
    checkpoints = Checkpoints(tmp_path / "folder", asynchronous=asynchronous)
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("in the way")

    def save_and_close() -> None:
        checkpoints.save(1, {"x": jnp.ones(3)}, description={})
        checkpoints.close()

    with pytest.raises(CheckpointError, match=r"cannot save step 1|cannot write a checkpoint"):
        save_and_close()


def test_orbax_does_not_chatter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": np.ones(3, np.float32)}, description={})
        checkpoints.restore({"x": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert not [record for record in caplog.records if "orbax" in record.pathname]
