"""Existing avatars: skipped if made with the same inputs, rejected if made with others, rebuilt if damaged."""

from pathlib import Path

import numpy as np
import pytest
from tiny_enrollment import images, make, meta, people  # noqa: F401 - a fixture

from th_jax.avatars.enroll import enroll
from th_jax.avatars.file import load_avatar
from th_jax.avatars.output import (
    REPORT_FILE,
    EnrollmentError,
    Outcome,
    Report,
    Saving,
    read_report,
    request_digest,
    unfinished,
)
from th_jax.avatars.requests import PersonRequest
from th_jax.storage.tensors import write_described


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.jpg").write_bytes(name.encode())
    return folder


def enrolled(saving: Saving, person: PersonRequest, *, max_shots: int | None = None) -> None:
    report = Report(saving.folder)
    assert [
        o.status for o in enroll(meta(), [person], saving, finetuning=None, max_shots=max_shots, report=report)
    ] == ["finished"]


def test_finished_people_are_skipped_and_other_settings_rejected(tmp_path: Path) -> None:
    notes = {"request": request_digest(meta(), {"epochs": 3})}
    saving = Saving(tmp_path, notes=notes)
    make(tmp_path, "ada", notes=notes, finetuning=None)
    assert unfinished(people("ada", "bob"), saving) == people("bob")
    other = Saving(tmp_path, notes={"request": request_digest(meta(), {"epochs": 4})})
    with pytest.raises(EnrollmentError, match=r"ada.safetensors .* other meta weights or settings"):
        unfinished(people("ada"), other)


def test_no_person_gets_another_persons_avatar(tmp_path: Path) -> None:
    """Another folder of the same name, an added image, and a changed image are all other images."""
    first, second = photos(tmp_path / "x" / "photos", "a", "b"), photos(tmp_path / "y" / "photos", "c")
    saving = Saving(tmp_path / "out")
    enrolled(saving, PersonRequest("photos", first))
    assert unfinished([PersonRequest("photos", first)], saving) == []
    renamed = photos(tmp_path / "z")
    for name, content in (("1", b"b"), ("2", b"a")):
        (renamed / f"{name}.jpg").write_bytes(content)
    assert unfinished([PersonRequest("photos", renamed)], saving) == [], "the same bytes are the same images"
    refused = r"photos.safetensors was made from images other than those at .*: remove it, or choose another folder"
    for changed in (PersonRequest("photos", second), PersonRequest("photos", first, landmarks=second / "c.jpg")):
        with pytest.raises(EnrollmentError, match=refused):
            unfinished([changed], saving)
    photos(first, "d")
    with pytest.raises(EnrollmentError, match=refused):
        unfinished([PersonRequest("photos", first)], saving)
    (first / "d.jpg").unlink()
    assert unfinished([PersonRequest("photos", first)], saving) == []
    (first / "a.jpg").write_bytes(b"retouched")
    with pytest.raises(EnrollmentError, match=refused):
        unfinished([PersonRequest("photos", first)], saving)


@pytest.mark.parametrize(("made", "asked"), [(None, 2), (2, None), (2, 8)])
def test_another_number_of_shots_is_another_avatar(tmp_path: Path, made: int | None, asked: int | None) -> None:
    person, saving = PersonRequest("ada", photos(tmp_path / "ada", "a")), Saving(tmp_path / "out")
    enrolled(saving, person, max_shots=made)
    assert unfinished([person], saving, max_shots=made) == []
    with pytest.raises(EnrollmentError, match="another --max-shots"):
        unfinished([person], saving, max_shots=asked)


def test_another_storage_is_another_avatar_and_32_shots_are_the_default(tmp_path: Path) -> None:
    person, saving = PersonRequest("ada", photos(tmp_path / "ada", "a")), Saving(tmp_path / "out")
    enrolled(saving, person)
    assert unfinished([person], saving, max_shots=32) == []
    with pytest.raises(EnrollmentError, match="another --max-shots"):
        unfinished([person], saving._replace(compact="int8"))


def test_a_damaged_avatar_is_rebuilt_and_other_files_are_kept(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    make(tmp_path, "ada", "bob", finetuning=None)
    whole = saving.avatar("ada").read_bytes()
    for left in (b"", b"not tensors", whole[: len(whole) // 2]):
        saving.avatar("ada").write_bytes(left)
        assert unfinished(people("ada", "bob"), saving) == people("ada")
    assert make(tmp_path, "ada", finetuning=None)["ada"].status == "finished"
    write_described(saving.avatar("eve"), {"x": np.zeros(1)}, "{}", file_format="th_jax.meta/1")
    with pytest.raises(EnrollmentError, match=r"eve.safetensors has the format 'th_jax.meta/1'.*choose another folder"):
        unfinished(people("eve"), saving)


def test_a_report_line_missing_after_a_kill_is_added(tmp_path: Path) -> None:
    """A run can be killed between writing an avatar and its report line; a later run adds the line."""
    saving, made = Saving(tmp_path), make(tmp_path, "ada", "bob", "eve", finetuning=None)
    lines = (tmp_path / REPORT_FILE).read_text().splitlines(keepends=True)
    (tmp_path / REPORT_FILE).write_text(lines[1])
    Report(tmp_path).add(Outcome("eve", "failed", "no face"))
    report = Report(tmp_path)
    assert unfinished(people("ada", "bob", "eve", "new"), saving, report=report) == people("new")
    assert report.outcomes == [], "they were finished before"
    latest = read_report(tmp_path)
    lost = {"seconds": 0.0, "looked_at": 0, "spare": 0, "left_out": ()}  # what the avatar's own file does not tell
    reported = {name: outcome._replace(**lost) if name != "bob" else outcome for name, outcome in made.items()}
    assert {name: outcome._replace(seconds=reported[name].seconds) for name, outcome in latest.items()} == reported
    before = (tmp_path / REPORT_FILE).read_bytes()
    assert unfinished(people("ada", "bob", "eve"), saving, report=report) == []
    assert (tmp_path / REPORT_FILE).read_bytes() == before
    (tmp_path / REPORT_FILE).unlink()
    saving.avatar("ada").write_bytes(saving.avatar("ada").read_bytes()[:-4] + b"????")
    assert unfinished(people("ada", "bob"), saving, report=report) == people("ada"), "it is not as it was written"
    assert set(read_report(tmp_path)) == {"bob"}
    assert load_avatar(saving.avatar("bob"), meta=meta()).digest == made["bob"].digest
