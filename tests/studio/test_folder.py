"""The studio's folder: names of uploads, what is a draft, one studio at a time, and what deleting an avatar deletes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from th_jax.studio import folder as module
from th_jax.studio.folder import (
    DRAFT_SECONDS,
    DiskFull,
    StudioFolder,
    shots_in,
    single_photo,
    store_shots,
    stored_name,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StudioFolder]:
    folder = StudioFolder(tmp_path / "studio")
    yield folder
    folder.close()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("a.jpg", "001_a.jpg"),
        ("../../etc/passwd", "001_passwd"),
        ("..\\..\\boot.ini", "001_boot.ini"),
        ("<img src=x onerror=alert(1)>.png", "001_img_src_x_onerror_alert_1_.png"),
        ("..", "001_file"),
        ("", "001_file"),
        (".hidden", "001_hidden"),
        ("Анна.jpg", "001_jpg"),
        ("a" * 300 + ".jpg", "001_" + "a" * 76 + ".jpg"),
    ],
)
def test_uploads_are_stored_under_plain_names(given: str, stored: str) -> None:
    name = stored_name(1, given)
    assert (Path(name).name, name.removeprefix("001_")[0] not in ".-") == (name, True)
    assert name.endswith(stored.removeprefix("001_")[-12:])
    assert len(name) <= 84


def files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [folder / name for name in names]


def test_a_draft_is_photos_or_one_video(tmp_path: Path) -> None:
    photos = store_shots(files(tmp_path / "in", "b.JPG", "a.png"), tmp_path / "photos")
    assert photos == tmp_path / "photos"
    assert [path.name for path in sorted(photos.iterdir())] == ["001_b.JPG", "002_a.png"]
    assert shots_in(photos) == photos
    video = store_shots(files(tmp_path / "in", "v.mp4"), tmp_path / "video")
    assert video.read_bytes() == b"v.mp4"
    assert shots_in(tmp_path / "video") == video


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "1 to 200 photos, or one video, got 0"),
        (("a.mp4", "b.mp4"), "either photos or a single video"),
        (("a.mp4", "b.jpg"), "either photos or a single video"),
        (("a.jpg", "b.exe"), "'b.exe' is neither a photo"),
        (("a.svg",), "'a.svg' is neither a photo"),
    ],
)
def test_other_uploads_are_an_error_and_nothing_is_stored(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store_shots(files(tmp_path / "in", *names), tmp_path / "draft")
    assert not (tmp_path / "draft").exists()


def test_one_studio_uses_a_folder_at_a_time(folder: StudioFolder) -> None:
    with pytest.raises(ValueError, match="another studio uses"):
        StudioFolder(folder.root)
    folder.close()
    StudioFolder(folder.root).close()


def test_others_cannot_read_the_folder(folder: StudioFolder) -> None:
    assert folder.root.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-a", "a" * 101, "a b", "a\n"])
def test_names_that_are_no_file_names_are_errors(folder: StudioFolder, name: str) -> None:
    for path in (folder.avatar, folder.consent, folder.known, folder.forget):
        with pytest.raises(ValueError, match="is not a valid avatar name"):
            path(name)


def test_old_drafts_are_deleted_at_the_next_start(folder: StudioFolder) -> None:
    old, new = folder.drafts / "old", folder.drafts / "new"
    for draft in (old, new):
        files(draft, "a.jpg")
    (cut_off,) = files(folder.uploads, "tmp_an_upload_that_was_cut_off")
    before = time.time() - DRAFT_SECONDS - 60
    for path in (old, cut_off):
        os.utime(path, (before, before))
    folder.close()
    StudioFolder(folder.root).close()
    assert (old.exists(), cut_off.exists(), new.exists()) == (False, False, True)


def test_uploads_leave_space_on_the_disk(folder: StudioFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.check_space()
    monkeypatch.setattr(module, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(DiskFull, match=r"would have only .* MiB left, .*: delete something"):
        folder.check_space()
    monkeypatch.setattr(module, "MIN_FREE_BYTES", 0)
    with pytest.raises(DiskFull, match="would have only 0 MiB left"):
        folder.check_space(incoming=2**62)


def test_a_users_folder_may_be_limited(tmp_path: Path) -> None:
    folder = StudioFolder(tmp_path / "studio", most_bytes=1000)
    files(folder.shots / "ada", "a.jpg")
    folder.check_space(incoming=900)
    with pytest.raises(DiskFull, match=r"your folder would have .* that are allowed: delete avatars or results"):
        folder.check_space(incoming=1000)
    folder.close()


def test_points_are_placed_on_one_photo(folder: StudioFolder) -> None:
    (photo,) = files(folder.drafts / "one", "a.jpg")
    assert single_photo(folder.drafts / "one") == photo
    files(folder.drafts / "two", "a.jpg", "b.jpg")
    files(folder.drafts / "film", "a.mp4")
    for name in ("two", "film", "none"):
        with pytest.raises(ValueError, match="placed on a single photo"):
            single_photo(folder.drafts / name)


def test_deleting_an_avatar_deletes_what_belongs_to_it_and_nothing_else(folder: StudioFolder) -> None:
    for name in ("ada", "ada-2"):
        folder.avatar(name).write_bytes(b"")
        folder.consent(name).write_text("{}")
        folder.landmarks(name).write_text("")
        files(folder.shots / name, "1.jpg")
        (folder.avatars / "previews" / name).mkdir(parents=True)
        files(folder.avatars / "previews" / name, "000000.png")
        result = folder.result(name, ".mp4")
        result.write_bytes(b"")
        result.with_name(result.name + ".provenance.json").write_bytes(b"")
    folder.forget("ada", results=False)
    assert len(list(folder.results.iterdir())) == 4
    assert folder.names() == ["ada-2"]
    folder.forget("ada")
    left = sorted(path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file())
    assert len(left) == 8  # with the lock
    assert all("ada-2" in path for path in left if path != ".lock")
    assert folder.names() == ["ada-2"]


def test_images_that_cannot_be_deleted_keep_their_record(folder: StudioFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.consent("ada").write_text("{}")
    files(folder.shots / "ada", "1.jpg")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr("th_jax.studio.folder.shutil.rmtree", refused)
    with pytest.raises(PermissionError, match="not yours"):
        folder.forget("ada")
    assert folder.consent("ada").exists()


def test_an_unreadable_avatar_has_no_card(folder: StudioFolder) -> None:
    folder.avatar("ada").write_bytes(b"no avatar")
    assert folder.cards() == []
