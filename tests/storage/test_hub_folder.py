"""A release for model hubs: its layout, card and checksums; read from the folder and from a hub's cache, never if altered."""

import json
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from commands import th_jax

from th_jax.data.video_list import VideoEntry, VideoList, row_key, save_video_list
from th_jax.models.networks import Networks
from th_jax.storage.checkpoints import Checkpoints
from th_jax.storage.files import file_sha256
from th_jax.storage.hub_folder import HubFolderError, hub_weights
from th_jax.storage.run_folder import write_config
from th_jax.training.released import model_card
from th_jax.weights import PretrainedError, load_meta


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a checkpoint, and its data set of one video."""
    folder = tmp_path_factory.mktemp("run")
    videos = VideoList(
        "tiny", 68, 16, True, shards={"train": 1}, splits={"train": (VideoEntry(row_key("a"), "a", "a", 2, 0, 0),)}
    )
    save_video_list(videos, folder)
    config = {
        "networks": {"image_size": 16, "base_width": 4}, "perceptual": [],
        "data": {"folder": str(folder), "split": "train"},
    }  # fmt: skip
    write_config(folder / "run", config)
    weights = Networks(image_size=16, base_width=4).init(jax.random.key(0))
    state = {
        "weights": weights, "averaged": weights.synthesis, "discriminator_updates": jnp.int32(8),
        "table": {"rows": jnp.zeros((256, 32))},
    }  # fmt: skip
    with Checkpoints(folder / "run" / "checkpoints") as checkpoints:
        checkpoints.save(4, state, description={"config": config, "video_list": videos.digest()})
    return folder / "run"


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "tiny-heads"
    command = ["release", str(run), "--hub", "--out", str(out), "--name", "tiny|heads", "--license", "CC0-1.0"]
    assert th_jax(command) == 0
    return out


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "tiny-heads"))


def test_the_folder_has_the_layout_of_hubs(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "README.md", "SHA256SUMS", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert [path.name for path in written.parent.iterdir()] == ["tiny-heads"], "nothing partial remains"
    meta = load_meta(written)
    config = json.loads((written / "config.json").read_text())
    assert (config["digest"], config["steps"], config["networks"]["image_size"]) == (meta.digest, 4, 16)
    assert "config" not in config, "paths of the training machine do not belong there"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=written, check=True, capture_output=True)
    _, header, text = (written / "README.md").read_text().split("---\n", 2)
    assert header.splitlines() == [
        "library_name: th_jax", "license: cc0-1.0",
        "tags: [jax, flax, talking-heads, few-shot-learning, face-reenactment]",
    ]  # fmt: skip
    assert text.startswith("\n# tiny/heads\n")
    for expected in (
        "16 x 16 px",
        "tiny, 1 videos of split train",
        f"`{meta.digest}`",
        "th-jax finetune --meta FOLDER",
    ):
        assert expected in text


def test_a_license_that_hubs_do_not_know_is_named_in_words() -> None:
    about = {
        "name": "n", "licence": 'Ours: see "terms"', "networks": {"image_size": 64}, "data": "d", "steps": 1,
        "dtype": "float16", "version": "0",
    }  # fmt: skip
    card = model_card(about, digest="00")
    assert 'license: other\nlicense_name: "ours-see-terms"\n' in card
    assert '| license | Ours: see "terms" |' in card


def test_an_existing_folder_is_left_alone(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert th_jax(["release", str(run), "--hub", "--out", str(folder), "--name", "n", "--license", "MIT"]) == 1
    assert "exists: choose a new folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_release_that_fails_leaves_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new"
    command = ["release", str(run), "--hub", "--out", str(out), "--name", "n", "--license", "MIT", "--step", "9"]
    assert th_jax(command) == 1
    assert "9" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def cache_of(folder: Path, cache: Path, *revisions: str) -> Path:
    """A hub's cache: files are links to blobs that are named by their digests."""
    for revision in revisions:
        (snapshot := cache / "snapshots" / revision).mkdir(parents=True)
        (blobs := cache / "blobs").mkdir(exist_ok=True)
        for path in folder.iterdir():
            blob = blobs / file_sha256(path)
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return cache


def test_a_hubs_cache_is_read_at_the_revision_that_main_names(folder: Path, tmp_path: Path) -> None:
    cache = cache_of(folder, tmp_path / "models--ada--tiny-heads", "1f2e", "90ab")
    with pytest.raises(HubFolderError, match="has 2 snapshots and none that refs/main names: give the path of one"):
        load_meta(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("90ab\n")
    assert hub_weights(cache) == cache / "snapshots" / "90ab" / "model.safetensors"
    assert load_meta(cache).digest == load_meta(folder).digest
    assert load_meta(cache / "snapshots" / "1f2e").digest == load_meta(folder).digest
    for other in ("missing", "../../../tiny-heads", "..", ""):
        (cache / "refs" / "main").write_text(other)
        with pytest.raises(HubFolderError, match="none that refs/main names"):
            hub_weights(cache)


def test_a_cache_with_one_snapshot_needs_no_reference(folder: Path, tmp_path: Path) -> None:
    cache = cache_of(folder, tmp_path / "models--ada--tiny-heads", "1f2e")
    assert load_meta(cache).digest == load_meta(folder).digest
    (cache / "snapshots" / "1f2e" / "model.safetensors").unlink()
    with pytest.raises(HubFolderError, match=r"has no model\.safetensors: download the model again"):
        load_meta(cache)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", r"model\.safetensors does not match its checksum in SHA256SUMS: download"),
        ("config.json", r"config\.json does not match its checksum"),
        ("SHA256SUMS", r"SHA256SUMS is not a list of checksums"),
    ],
)
def test_an_altered_folder_is_refused(folder: Path, name: str, said: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[0] = ord("z")
    (folder / name).write_bytes(content)
    with pytest.raises(HubFolderError, match=said):
        load_meta(folder)


def test_checksums_that_lack_a_file(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(HubFolderError, match=r"config\.json is missing, but SHA256SUMS lists it"):
        load_meta(folder)
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(HubFolderError, match=r"does not list model\.safetensors"):
        load_meta(folder)
    (folder / "SHA256SUMS").write_text("0" * 64 + "  ../model.safetensors\n")
    with pytest.raises(HubFolderError, match="is not a list of checksums"):
        load_meta(folder)
    (folder / "SHA256SUMS").unlink()
    load_meta(folder)  # the weights' own checksum remains


def test_other_folders_are_no_hub_folders(tmp_path: Path, run: Path, folder: Path) -> None:
    assert hub_weights(run) is None
    assert hub_weights(tmp_path) is None
    assert hub_weights(tmp_path / "nowhere") is None
    assert hub_weights(folder / "model.safetensors") is None
    with pytest.raises(PretrainedError, match="only a run folder has steps"):
        load_meta(folder, step=4)
