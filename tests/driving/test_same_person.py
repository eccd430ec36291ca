"""Automatic retargeting: by the driver's face shape, none for the avatar's own person, said in one line and in the record."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import animate as command
from driver_clips import blank, swaying, write_clip

from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.cli import animate as animate_command
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving import camera
from th_jax.driving.animate import animate
from th_jax.driving.same_person import RETARGETING, Choice, compare_faces, identity, known_choice
from th_jax.landmarks.methods import Target
from th_jax.landmarks.transfer import Gains
from th_jax.media import read_image
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
OTHER = "retargeting model: the driver is another person (distance of identities"
BARE = "the avatar was saved without the landmarks of its shots"


def points_of(person: int, start: int, count: int) -> np.ndarray:
    return VideoRecords(bundled_heads(), "heldout").read(person).landmarks[start::3][:count, :68]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar of a rendered head, one without landmarks, and landmarks of the same person and a video of another."""
    folder = tmp_path_factory.mktemp("same_person")
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    record = Provenance(kind=Kind.GENERATED, inputs=("a" * 64,))
    save_avatar(folder / "ada.safetensors", avatar, networks=NETWORKS, provenance=record, landmarks=points_of(3, 0, 8))
    save_avatar(folder / "bare.safetensors", avatar, networks=NETWORKS, provenance=record)
    np.savez(folder / "own.npz", landmarks=points_of(3, 1, 20), fps=10)
    write_clip(folder / "other.mp4", swaying(12))
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedAvatar:
    return load_avatar(folder / "ada.safetensors")


def test_faces_are_compared_at_any_place_and_size() -> None:
    shots = points_of(3, 0, 8)
    for moved in (lambda points: points, lambda points: 0.7 * points + 0.2):
        same, other = compare_faces(shots, moved(points_of(3, 1, 20))), compare_faces(shots, moved(points_of(8, 1, 20)))
        assert str(same).startswith(
            "retargeting none: the driver has the face of the avatar's person (distance of ident"
        )
        assert str(other).startswith(OTHER)
        assert (same.method, other.method) == ("none", "model")
    assert np.linalg.norm(identity(shots)) == pytest.approx(1)
    lost = np.full((3, 68, 2), np.nan, np.float32)
    for faces in ((shots, lost), (lost, shots)):
        assert compare_faces(*faces).method == "none"


def test_what_is_known_before_the_driver_is_read(loaded: LoadedAvatar) -> None:
    assert known_choice(loaded, Path("a.mp4"), "auto") is None
    assert known_choice(loaded, Path("a.npz"), "auto") is None
    assert known_choice(loaded, Path("a.mp4"), "shape") == Choice("shape", None)
    reason = "gains and a neutral time need it"
    assert known_choice(loaded, Path("a.mp4"), "auto", gains=Gains(mouth=0.5)) == ("model", reason)
    assert known_choice(loaded, Path("a.mp4"), "auto", neutral=0.0) == ("model", reason)
    lost = dataclasses.replace(loaded, landmarks=np.full((2, 68, 2), np.nan, np.float32))
    for avatar, driver, why in (
        (loaded, "a.csv", "a motion file moves the avatar's own face"),
        (dataclasses.replace(loaded, landmarks=None), "a.mp4", BARE),
        (lost, "camera:0", BARE),
    ):
        assert known_choice(avatar, Path(driver), "auto") == ("none", why)


def test_the_choice_is_printed_and_recorded(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def made(driver: str, *options: str, avatar: str = "ada") -> tuple[str, str]:
        out = tmp_path / "a.png"
        files = ["--avatar", str(folder / f"{avatar}.safetensors"), "--driver", str(folder / driver)]
        assert command([*files, "--out", str(out), *options]) == 0
        return capsys.readouterr().out, str(read_sidecar(out)[0].notes)

    for text in made("other.mp4"):
        assert f"; {OTHER}" in text
    for text in made("own.npz"):
        assert "; retargeting none: the driver has the face of the avatar's person" in text
    for text in made("other.mp4", avatar="bare"):
        assert f"; retargeting none: {BARE}" in text
    printed, notes = made("other.mp4", "--retargeting", "none")
    assert "retargeting" not in printed
    assert notes.endswith("; retargeting none")


def test_another_persons_motion_is_adapted(folder: Path, loaded: LoadedAvatar, tmp_path: Path) -> None:
    pictures = {}
    for method in (*RETARGETING[:2], "model"):
        file = tmp_path / f"{method}.png"
        done = animate(loaded, folder / "other.mp4", file, retargeting=method, layout=("landmarks", "avatar"))
        assert done.retargeting.method == {"auto": "model"}.get(method, method)
        pictures[method] = read_image(file)
    np.testing.assert_array_equal(pictures["auto"], pictures["model"])
    assert (pictures["none"] != pictures["model"]).any()


def test_a_camera_chooses_for_each_new_face(
    folder: Path, loaded: LoadedAvatar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    targets: list[Target | None] = []

    def shown(_: LoadedAvatar, __: int, **options: object) -> int:
        chooser = options["target"]
        if callable(chooser):
            frames = [*swaying(camera.FIRST_FRAMES), *blank(12), *swaying(camera.FIRST_FRAMES)]
            return len(list(camera.live_frames(loaded, frames, target=lambda face: targets.append(chooser(face)))))  # type: ignore[arg-type,func-returns-value]
        targets.append(chooser)  # type: ignore[arg-type]
        return 0

    monkeypatch.setattr(animate_command, "drive_with_camera", shown)
    monkeypatch.setattr(animate_command, "missing_window", lambda: None)
    avatar = ["--avatar", str(folder / "ada.safetensors"), "--driver", "camera:0"]
    assert command(avatar) == 0
    assert [target and target.method for target in targets] == ["model", "model"]
    assert capsys.readouterr().out.count(OTHER) == 2
    assert command([*avatar, "--retargeting", "none"]) == 0
    assert targets[-1] is None
    assert "retargeting" not in capsys.readouterr().out
    assert command([*avatar[:1], str(folder / "bare.safetensors"), *avatar[2:]]) == 0
    assert f"retargeting none: {BARE}" in capsys.readouterr().out
