"""A person's files in a stopped preparation are found by whole names and hashes, and no other person's."""

from pathlib import Path

import pytest

from data_prep.build.drop_report import Drop
from data_prep.build.quality import Reason
from data_prep.build.staging import ASSEMBLY, Outcome, Staged, write_outcome
from data_prep.forget.traces import find_staged
from tests.data_prep.folders import files
from tests.data_prep.video_records import record_of
from th_jax.data.schema import serialise
from th_jax.data.tfrecord import pack
from th_jax.data.video_list import row_key

ADA, EVE, YVES = "id1000", "id10001", "xid1000"


def line(video_id: str | None, path: str) -> str:
    return Drop("clip", video_id, path, Reason.NO_FACE).line()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three people with a video that was used and one that was not, whose names begin or end alike."""
    folder = tmp_path / ".people.staging"
    for person in (ADA, EVE, YVES):
        record = record_of(1)._replace(video_id=f"{person}/used", identity=person, source_sha256=row_key(person))
        write_outcome(Staged(folder / "videos" / person / "used", "f"), Outcome((), serialise(record)))
        line_of = line(f"{person}/unused", f"dev/{person}/unused/1.mp4")
        write_outcome(Staged(folder / "videos" / person / "unused", "f"), Outcome((line_of,), None))
    (folder / "settings.json").write_text(f'{{"takedown": "{ADA}"}}')
    (folder / "lock").touch()
    return folder


def found(folder: Path, *names: str, digests: tuple[str, ...] = ()) -> set[str]:
    paths = [folder / path for path in files(folder)]
    return {path.relative_to(folder).as_posix() for path in find_staged(paths, names, digests)}


def test_a_person_or_a_video_is_found_whole(folder: Path) -> None:
    for person in (ADA, EVE, YVES):
        both = {f"videos/{person}/used", f"videos/{person}/unused"}
        assert found(folder, person) == both
        assert found(folder, f"{person}/unused") == {f"videos/{person}/unused"}
        assert found(folder, "unknown", digests=(row_key(person),)) == {f"videos/{person}/used"}
    assert found(folder, "id", "used", "CC0-1.0", "fingerprint", "1", "no_face") == set()
    assert found(folder) == set()


def test_a_video_that_lies_beside_the_folders_is_its_persons(folder: Path) -> None:
    write_outcome(Staged(folder / "videos" / "x", "f"), Outcome((line("ada.mp4", "ada.mp4"),), None))
    write_outcome(Staged(folder / "videos" / "y", "f"), Outcome((line(None, "ada/notes.txt"),), None))
    assert found(folder, "ada") == {"videos/x", "videos/y"}
    assert found(folder, "ad", "mp4") == set()


def test_what_cannot_be_read_is_searched_for_whole_names(folder: Path) -> None:
    for path in list((folder / "videos").rglob("*used")):
        path.write_bytes(path.read_bytes()[:-1])
    assert found(folder) == set()
    for person in (ADA, EVE, YVES):
        assert found(folder, person) == {f"videos/{person}/used", f"videos/{person}/unused"}


@pytest.mark.parametrize("name", ["id1000", "Zoë", "x" * 50, "y" * 300, 'a "quoted" \\ name'])
def test_a_data_set_that_is_put_together_is_searched(tmp_path: Path, name: str) -> None:
    shard = tmp_path / ".people.staging" / ASSEMBLY / "people-train.tfrecord-00000-of-00001"
    shard.parent.mkdir(parents=True)
    records = [record_of(1)._replace(identity=who) for who in ("eve", name)]
    shard.write_bytes(b"".join(pack(serialise(record)) for record in records))
    shard.with_name("videos.json").write_text(f'{{"people": ["{name}2", "3{name}"]}}')
    folder = tmp_path / ".people.staging"
    assert found(folder, name) == {f"{ASSEMBLY}/{shard.name}"}
    assert found(folder, name[:-1], name[1:], f"{name}0") == set()


def test_a_file_is_known_by_its_own_name(tmp_path: Path) -> None:
    key = row_key("id1000/used")
    partial = tmp_path / ".people.staging" / "videos" / key[:2] / f".{key}.0123abcd.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\0")
    assert found(tmp_path / ".people.staging", "id1000/used") == {f"videos/{key[:2]}/{partial.name}"}
    assert found(tmp_path / ".people.staging", "id1000/use", "Jos\udce9") == set()
