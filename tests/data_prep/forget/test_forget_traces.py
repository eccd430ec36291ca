"""Forgetting a person everywhere leaves no file below the folder that names or hashes find, and keeps all other people."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from data_prep.build.shard_writer import write_data_set
from data_prep.forget.command import main
from data_prep.forget.rows import WORK_FOLDER, forget
from data_prep.forget.traces import find_traces, remove_traces
from tests import commands
from tests.data_prep.folders import files
from tests.data_prep.video_records import record_of
from th_jax.avatars.file import save_avatar
from th_jax.consent import Basis, ConsentFacts, make_consent, read_consent, with_consent, write_consent
from th_jax.data.records import VideoRecords
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, write_image
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
IMAGE = np.zeros((16, 16, 3), np.uint8)
ADA_SHOT, EVE_SHOT = "a" * 64, "e" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Ada and of Eve: photos, records, avatars, images, previews, a report, a data set, staged videos."""
    root = tmp_path_factory.mktemp("made") / "root"
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), jax.numpy.ones(NETWORKS.plan.embedding))
    lines = [json.dumps({"name": name, "status": "finished"}) for name in ("ada", "eve", "ada")]
    for number, (name, shot) in enumerate((("ada", ADA_SHOT), ("eve", EVE_SHOT))):
        photos = root / "photos" / name
        photos.mkdir(parents=True)
        for photo in ("0.jpg", "1.jpg"):
            (photos / photo).write_bytes(f"{name} {photo}".encode())
        consent = make_consent(photos, subject=name, basis=Basis.SELF)
        write_consent(root / f"{name}.consent.json", consent)
        record = with_consent(Provenance(kind=Kind.GENERATED, inputs=(shot,)), ConsentFacts.of(consent))
        path, moved = root / "avatars" / f"{name}.safetensors", avatar._replace(adain=avatar.adain + number)
        digest = save_avatar(path, moved, networks=NETWORKS, provenance=record)
        video = root / "videos" / f"from {name}.png"
        video.parent.mkdir(exist_ok=True)
        write_image(video, IMAGE, provenance=Provenance(kind=Kind.GENERATED, avatar=digest))
        preview = root / "avatars" / "previews" / name / "000000.png"
        preview.parent.mkdir(parents=True)
        write_image(preview, IMAGE, provenance=Provenance(kind=Kind.TRAINING_GRID))
        staged = root / ".people.staging" / "videos" / name[:2] / name
        staged.parent.mkdir(parents=True)
        staged.write_bytes(b"\x00record of " + name.encode())
    # The same shots without a record, under a name that says nothing; a copy under another name; tensors that are no avatar.
    hidden = Provenance(kind=Kind.GENERATED, inputs=("0" * 64, ADA_SHOT), notes="no consent recorded")
    save_avatar(
        root / "x" / "7.safetensors", avatar._replace(adain=avatar.adain - 1), networks=NETWORKS, provenance=hidden
    )
    shutil.copy(root / "photos" / "ada" / "1.jpg", root / "x" / "copy.JPEG")
    (root / "x" / "notes.safetensors").write_bytes(b"none")
    (root / "avatars" / "report.jsonl").write_text("\n".join([*lines, '{"name": "a']))
    digest = hashlib.sha256((root / "photos" / "ada" / "0.jpg").read_bytes()).hexdigest()
    videos = [record_of(number) for number in range(4)]
    videos[1] = videos[1]._replace(source_sha256=digest)
    write_data_set(root / "people", {"train": iter(videos)}, name="people", records_per_shard=2)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


def videos(root: Path) -> list[str]:
    opened = VideoRecords(root / "people", "train")
    return [opened.read(number).video_id for number in range(len(opened))]


OF_ADA = {
    "photos/ada/0.jpg", "photos/ada/1.jpg", "x/copy.JPEG", "avatars/ada.safetensors", "x/7.safetensors",
    "videos/from ada.png", "videos/from ada.png.provenance.json", "avatars/previews/ada/000000.png",
    "avatars/previews/ada/000000.png.provenance.json",
}  # fmt: skip


EMPTIED = "avatars/previews/ada/"


def test_a_record_finds_what_is_left_under_any_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    command = [str(root), "--everywhere", "--consent", str(root / "ada.consent.json")]
    assert main([*command, "--dry-run"]) == 0
    *listed, end = capsys.readouterr().out.splitlines()
    assert "12 items would be removed" in end
    assert files(root) == before
    assert (root / EMPTIED).is_dir()
    rows = f"{root / 'people'}: video video1"
    report = f"{root / 'avatars' / 'report.jsonl'}: lines of ada"
    assert sorted(listed) == sorted([rows, report, *(f"{root}/{path}" for path in (*OF_ADA, EMPTIED))])
    assert main(command) == 0
    *removed, end = capsys.readouterr().out.splitlines()
    assert removed == listed
    assert "12 items removed" in end
    assert before - files(root) == OF_ADA
    assert files(root) - before == {"people/forgotten.jsonl"}
    assert not (root / EMPTIED).exists()
    assert videos(root) == ["video0", "video2", "video3"]
    left = (root / "avatars" / "report.jsonl").read_text()
    assert left.splitlines() == ['{"name": "eve", "status": "finished"}', '{"name": "a']
    assert main(command) == 0
    assert "0 items removed" in capsys.readouterr().out


def test_names_find_avatars_rows_and_what_was_prepared(root: Path) -> None:
    before = files(root)
    remove_traces(find_traces(root, ["ada", "person1"]))
    gone = before - files(root)
    photos = {"photos/ada/0.jpg", "photos/ada/1.jpg", "x/copy.JPEG"}  # which no name finds
    assert gone == OF_ADA - photos | {".people.staging/videos/ad/ada"}
    assert videos(root) == ["video0", "video1"]


@pytest.mark.parametrize("linked", ["avatars/previews/ada", "avatars/previews", "avatars"])
def test_nothing_outside_is_touched_and_links_are_not_followed(root: Path, tmp_path: Path, linked: str) -> None:
    outside, photos = tmp_path / "outside", tmp_path / "photos"
    shutil.move(root / linked, outside)
    (root / linked).symlink_to(outside)
    shutil.copytree(root / "photos" / "ada", photos)
    (root / "link").symlink_to(photos)
    (root / "link.jpg").symlink_to(photos / "0.jpg")
    before = files(outside), files(photos)
    traces = find_traces(root, ["ada"], consent=read_consent(root / "ada.consent.json"))
    remove_traces(traces)
    assert (files(outside), files(photos)) == before
    if linked != "avatars":
        assert traces.doubts == {root / linked: "is a link: look at what it leads to"}


def test_links_with_the_name_of_a_person_are_reported(root: Path, tmp_path: Path) -> None:
    links = {root / "x" / "ada.safetensors", root / "people" / "copy-of-a-shard", root / "ada"}
    (tmp_path / "ada.safetensors").write_bytes(b"x")
    for link in (*links, root / "x" / "eve.safetensors"):
        link.symlink_to(tmp_path / "ada.safetensors")
    assert find_traces(root, ["ada", "person1"]).doubts == dict.fromkeys(links, "is a link: look at what it leads to")


def test_a_link_where_a_stopped_run_kept_its_work_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(root / "people", outside)
    (outside / "videos.json").rename(outside / "videos.before.json")
    (root / "people" / "videos.json").unlink()
    (root / "people" / WORK_FOLDER).symlink_to(outside)
    before = files(outside)
    with pytest.raises(ValueError, match=r"\.forgetting is a link, which th-jax prepare forget never creates"):
        forget(root / "people", ["person1"])
    assert commands.forget([str(root), "person1", "--everywhere"]) == 1
    assert files(outside) == before


def test_mistakes_change_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(root), "", "--everywhere"], "one of the names is empty: nothing was changed"),
        ([str(root), "ada", " \t", "--everywhere"], "one of the names is empty"),
        ([str(root / "people"), ""], "one of the names is empty"),
        ([str(root), "--everywhere"], "no person was named"),
        ([str(tmp_path / "no"), "ada", "--everywhere"], "does not exist"),
        ([str(root), "--everywhere", "--consent", str(root / "no.json")], "invalid consent record"),
        ([str(root / "people"), "person1", "--dry-run"], "--consent and --dry-run need --everywhere"),
    ):
        before = files(root)
        assert commands.forget(arguments) == 1
        assert message in capsys.readouterr().err
        assert files(root) == before
    with pytest.raises(SystemExit):
        main(["", "ada", "--everywhere"])
    assert "the folder's name is empty" in capsys.readouterr().err
    (root / "people" / WORK_FOLDER).mkdir()
    with pytest.raises(ValueError, match=r"th-jax prepare forget was interrupted in .*people: run it there again"):
        find_traces(root, ["ada"])


def test_after_a_stop_anywhere_the_same_command_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, before = tmp_path / "root", files(made)
    command = [str(root), "--everywhere", "--consent", str(root / "ada.consent.json")]
    for step in range(1000):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(made, root)
        left = [step]

        def stopping(real, left=left):
            def call(path, *arguments, **options):
                if os.path.lexists(path):  # writers remove temporary files that mostly do not exist
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                return real(path, *arguments, **options)

            return call

        with monkeypatch.context() as patched:
            for place, name in ((Path, "unlink"), (Path, "rmdir"), (os, "rename"), (os, "replace")):
                patched.setattr(place, name, stopping(getattr(place, name)))
            try:
                assert main(command) == 0
                break
            except KeyboardInterrupt:
                pass
        assert main(command) == 0
        assert before - files(root) == OF_ADA
        assert files(root) - before == {"people/forgotten.jsonl"}
        assert not (root / EMPTIED).exists()
        assert videos(root) == ["video0", "video2", "video3"]
        assert "ada" not in (root / "avatars" / "report.jsonl").read_text()
    assert step > len(OF_ADA)
