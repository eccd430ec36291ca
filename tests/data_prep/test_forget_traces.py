"""Who is forgotten everywhere leaves nothing below the folder that names or hashes find, and everybody else stays."""

import hashlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_shard_writer import record_of

from data_prep.forget import main
from data_prep.forget_rows import WORK_FOLDER
from data_prep.forget_traces import find_traces, remove_traces
from data_prep.shard_writer import write_data_set
from th_jax.avatars import save_avatar
from th_jax.consent import Basis, ConsentFacts, make_consent, read_consent, with_consent, write_consent
from th_jax.data.records import VideoRecords
from th_jax.media import Kind, Provenance, sidecar_path, write_image
from th_jax.models.networks import Networks
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)
PICTURE = np.zeros((16, 16, 3), np.uint8)
ADA_SHOT, EVE_SHOT = "a" * 64, "e" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Ada and of Eve: photos, records, avatars, pictures, previews, a report, a data set, staged videos."""
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
        film = root / "films" / f"from {name}.png"
        film.parent.mkdir(exist_ok=True)
        write_image(film, PICTURE, provenance=Provenance(kind=Kind.GENERATED, avatar=digest))
        preview = root / "avatars" / "previews" / name / "000000.png"
        preview.parent.mkdir(parents=True)
        write_image(preview, PICTURE, provenance=Provenance(kind=Kind.TRAINING_GRID))
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


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def videos(root: Path) -> list[str]:
    opened = VideoRecords(root / "people", "train")
    return [opened.read(number).video_id for number in range(len(opened))]


OF_ADA = {
    "photos/ada/0.jpg", "photos/ada/1.jpg", "x/copy.JPEG", "avatars/ada.safetensors", "x/7.safetensors",
    "films/from ada.png", "films/from ada.png.provenance.json", "avatars/previews/ada/000000.png",
    "avatars/previews/ada/000000.png.provenance.json",
}  # fmt: skip


def test_a_record_finds_what_is_left_under_any_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    command = [str(root), "--everywhere", "--consent", str(root / "ada.consent.json")]
    assert main([*command, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "10 traces would be removed, and nothing was" in printed
    assert files(root) == before
    assert main(command) == 0
    assert "10 traces removed" in capsys.readouterr().out
    assert before - files(root) == OF_ADA
    assert files(root) - before == {"people/forgotten.jsonl"}
    assert videos(root) == ["video0", "video2", "video3"]
    assert [json.loads(line)["name"] for line in (root / "avatars" / "report.jsonl").read_text().splitlines()[:1]] == [
        "eve"
    ]
    assert main(command) == 0
    assert "0 traces removed" in capsys.readouterr().out


def test_names_find_avatars_rows_and_what_was_prepared(root: Path) -> None:
    before = files(root)
    remove_traces(find_traces(root, ["ada", "person1"]))
    gone = before - files(root)
    photos = {"photos/ada/0.jpg", "photos/ada/1.jpg", "x/copy.JPEG"}  # which no name finds
    assert gone == OF_ADA - photos | {".people.staging/videos/ad/ada"}
    assert videos(root) == ["video0", "video1"]


def test_nothing_outside_is_touched_and_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(root / "photos" / "ada", outside)
    (root / "link").symlink_to(outside)
    (root / "link.jpg").symlink_to(outside / "0.jpg")
    shutil.rmtree(root / "avatars" / "previews" / "ada")
    (root / "avatars" / "previews" / "ada").symlink_to(outside)
    remove_traces(find_traces(root, [], consent=read_consent(root / "ada.consent.json")))
    assert sorted(path.name for path in outside.iterdir()) == ["0.jpg", "1.jpg"]


def test_mistakes_change_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(root), "--everywhere"], "nobody was named: give a person or a video, or their consent record"),
        ([str(tmp_path / "no"), "ada", "--everywhere"], "there is no folder"),
        ([str(root), "--everywhere", "--consent", str(root / "no.json")], "no consent record"),
        ([str(root / "people"), "person1", "--dry_run"], "--consent and --dry_run go with --everywhere"),
    ):
        before = files(root)
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
        assert files(root) == before
    (root / "people" / WORK_FOLDER).mkdir()
    with pytest.raises(ValueError, match=r"a run of data_prep.forget was stopped in .*people: run it there again"):
        find_traces(root, ["ada"])


def test_a_stop_on_the_way_is_completed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    consent, before = read_consent(root / "ada.consent.json"), files(root)
    for calls in range(1, 9):
        left, unlink = [calls], Path.unlink

        def stopped(path: Path, *, missing_ok: bool = False, left: list[int] = left, unlink=unlink) -> None:
            if path.exists():  # whoever writes tidies up what is mostly not there
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", stopped)
            try:
                remove_traces(find_traces(root, [], consent=consent))
            except KeyboardInterrupt:
                continue
    remove_traces(find_traces(root, [], consent=consent))
    assert before - files(root) == OF_ADA
    assert not sidecar_path(root / "films" / "from ada.png").exists()
