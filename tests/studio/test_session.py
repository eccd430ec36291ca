"""The studio's operations without its page: consent form, fine-tuning with previews, stop-and-keep and cancel, drive, edit."""

import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_enrollment import HOW, images, meta  # noqa: F401 - a fixture

from th_jax.avatars import person_files
from th_jax.avatars.file import load_avatar
from th_jax.avatars.output import Saving, request_digest, unfinished
from th_jax.avatars.requests import one_person
from th_jax.avatars.settings import default_config
from th_jax.cli import finetune as command
from th_jax.consent import Basis, ConsentError, read_consent
from th_jax.data.shots import _BY_HAND
from th_jax.driving.edit import CONTROLS
from th_jax.media import MediaError, MediaFault
from th_jax.provenance import read_sidecar
from th_jax.provenance.verify import Verdict
from th_jax.storage.database import durable_connection
from th_jax.studio import making, session
from th_jax.studio.drives import DriveSettings, provenance_lines
from th_jax.studio.jobs import Job, State
from th_jax.studio.making import ConsentForm, record_of
from th_jax.studio.origin import WORDS, origin_of
from th_jax.studio.session import Studio, table_of
from th_jax.studio.shots import SIZE, tiles

FORM = ConsentForm("Ada", "the person does not exist", ("private", "art"), "a test", "2099-01-31")
LONG = 300.0
"""Seconds that a tiny avatar may take on a busy machine."""


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setattr(making, "finetuning_of", lambda config, meta: HOW)
    studio = Studio(tmp_path / "studio")
    monkeypatch.setattr(studio, "meta", lambda name: meta())
    yield studio
    studio.close()


def reopened(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """The studio after the end of its process."""
    studio.close()
    monkeypatch.setattr(Studio, "meta", lambda self, name: meta())
    return Studio(studio.folder.root)


def draft(studio: Studio, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    photos = [folder / f"{name}.jpg" for name in "abc"]
    for photo in photos:
        photo.write_bytes(photo.name.encode())
    return studio.draft(photos)[0]


def files(studio: Studio) -> set[str]:
    """What was made: everything but drafts and locks."""
    found = {
        path.relative_to(studio.folder.root).as_posix() for path in studio.folder.root.rglob("*") if path.is_file()
    }
    return {name for name in found if not name.startswith((".lock", "jobs.sqlite", "drafts/", "workers/"))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject": "  "}, "needs the name or a pseudonym"),
        ({"basis": ""}, "choose on the consent form why"),
        ({"uses": ()}, "choose at least one use"),
        ({"uses": ("private", "war")}, "choose at least one use"),
        ({"expires": "tomorrow"}, "must be a date such as 2027-01-31, got 'tomorrow'"),
        ({"expires": "2020-01-31"}, "expires"),
    ],
)
def test_an_incomplete_consent_form_is_an_error_and_writes_nothing(
    studio: Studio, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    token = draft(studio, tmp_path / "in")
    with pytest.raises(ConsentError, match=message):
        studio.create(token, "ada", FORM._replace(**changes))
    assert files(studio) == set()
    assert studio.jobs.progress() == []


def test_the_form_makes_the_record(studio: Studio, tmp_path: Path) -> None:
    token = draft(studio, tmp_path / "in")
    record = record_of(FORM, studio.folder.drafts / token)
    assert (record.subject, record.basis, record.scope) == ("Ada", Basis.SYNTHETIC, "a test")
    assert (set(record.uses), record.expires, len(record.shots)) == ({"private", "art"}, "2099-01-31T00:00:00+00:00", 3)


@pytest.mark.parametrize("token", ["", "../../../../etc", "0" * 16, "x"])
def test_without_images_there_is_no_avatar(studio: Studio, token: str) -> None:
    with pytest.raises(ValueError, match="there are no images"):
        studio.create(token, "ada", FORM)
    assert files(studio) == set()


def test_from_photos_to_an_avatar_a_video_and_an_edit(studio: Studio, tmp_path: Path) -> None:
    token = draft(studio, tmp_path / "in")
    job = studio.create(token, "ada", FORM)
    with pytest.raises(ValueError, match="is being made already"):
        studio.create(token, "ada", FORM)
    assert job.wait(timeout=LONG)
    done = job.progress()
    assert done.words == "finished: ada: 3 shots, 1 left out, 3 fine-tuning steps"
    assert len(done.losses) == 3
    assert [path.name for path in studio.folder.previews("ada")] == ["000000.png", "000002.png", "000003.png"]
    assert all(read_sidecar(path)[0].consent for path in studio.folder.previews("ada"))

    (card,) = studio.folder.cards()
    assert (card.name, card.shots, card.steps, card.subject) == ("ada", 3, 3, "Ada")
    assert card.consent == "synthetic, until 2099-01-31T00:00:00+00:00, a test"
    assert card.digest == load_avatar(card.path).digest
    assert read_consent(studio.folder.consent("ada")).digest == load_avatar(card.path).provenance.consent
    # The command line that is shown takes this avatar for its own.
    options = command.parser().parse_args(shlex.split(studio.command_of(job.request))[2:])
    config = default_config("paper")
    saving = Saving(Path(options.out), notes={"request": request_digest(meta(), config)})
    person = one_person(Path(options.shots), name=options.name, consent=Path(options.consent))
    assert unfinished([person], saving) == []

    assert not (studio.folder.drafts / token).exists()
    again = draft(studio, tmp_path / "in")
    with pytest.raises(ValueError, match="there is already an avatar 'ada'"):
        studio.create(again, "ada", FORM)
    studio.discard(again)
    assert studio.folder.names() == ["ada"], "still there"

    driver = tmp_path / "talk.npz"
    np.savez(driver, landmarks=np.asarray(load_avatar(card.path).landmarks), fps=10)
    driven = studio.drive("ada", DriveSettings(retargeting="none"), upload=driver)
    assert driven.wait(timeout=LONG)
    found = driven.progress()
    assert found.result is not None, found.words
    assert (found.state, found.stage.split(";")[0]) == (State.FINISHED, "3 frames at 10 frames/s, without sound")
    record, untouched = read_sidecar(found.result)
    assert (record.avatar, record.consent, untouched) == (card.digest, load_avatar(card.path).provenance.consent, True)
    assert f"avatar {card.digest}" in provenance_lines(found.result)

    still, words = studio.edit("ada", dict.fromkeys(CONTROLS, 0.0) | {"yaw": 10.0})
    assert "--edit yaw=10" in words
    assert read_sidecar(still)[0].avatar == card.digest
    assert not list(studio.folder.drafts.glob("*.csv"))

    assert "was revoked" in studio.revoke("ada")
    with pytest.raises(ConsentError, match="revoked"):
        studio.drive("ada", DriveSettings(), upload=driver)
    with pytest.raises(ConsentError, match="revoked"):
        studio.edit("ada", {})
    assert "revoked" in studio.folder.card("ada").consent

    studio.forget("ada")
    assert files(studio) == {"avatars/report.jsonl"}
    assert studio.jobs.progress() == []
    assert list(studio.folder.drafts.iterdir()) == []


def during_fine_tuning(studio: Studio, tmp_path: Path, act: Callable[[Job], None], monkeypatch: Any) -> Job:
    """Make an avatar, and act when its first chunk is reported."""
    original = Job.advance

    def advance(job: Job, done: int, total: int) -> None:
        assert (done, total) == (2, 3)
        act(job)
        original(job, done, total)

    monkeypatch.setattr(Job, "advance", advance)
    job = studio.create(draft(studio, tmp_path / "in"), "ada", FORM)
    assert job.wait(timeout=LONG)
    return job


def test_stop_and_keep_keeps_the_avatar_of_that_step(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = during_fine_tuning(studio, tmp_path, Job.stop_and_keep, monkeypatch)
    assert job.progress().words == "finished: ada: 3 shots, 1 left out, 2 fine-tuning steps"
    assert load_avatar(studio.folder.avatar("ada")).notes["steps"] == 2


def test_cancel_leaves_nothing_but_the_draft(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = during_fine_tuning(studio, tmp_path, Job.cancel, monkeypatch)
    assert job.progress().state is State.CANCELLED
    assert files(studio) <= {"avatars/report.jsonl"}
    assert list(studio.folder.drafts.iterdir())


def test_a_frame_of_the_camera_is_deleted_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    studio = Studio(tmp_path / "link")
    frame = tmp_path / "link" / "uploads" / "frame.jpg"
    frame.write_bytes(b"no image")
    with pytest.raises(MediaError):
        studio.live("ada", frame)
    assert not frame.exists()
    studio.close()


def test_the_end_of_the_studio_interrupts_fine_tuning_and_the_next_start_does_it_again(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, reported = Job.advance, threading.Event()

    def advance(job: Job, done: int, total: int) -> None:
        first = not reported.is_set()
        reported.set()
        while first and not job.stopped:
            time.sleep(0.01)
        original(job, done, total)

    monkeypatch.setattr(Job, "advance", advance)
    job = studio.create(draft(studio, tmp_path / "in"), "ada", FORM)
    assert reported.wait(LONG)
    studio.close()
    assert job.progress().words == "waiting"
    opened = reopened(studio, monkeypatch)
    with pytest.raises(ValueError, match="is being made already"):
        opened.create("0" * 16, "ada", FORM)
    with pytest.raises(ValueError, match="unfinished jobs for 'ada'"):
        opened.forget("ada")
    again = opened.jobs.get(job.number)
    assert again.wait(timeout=LONG)
    assert again.progress().words == "finished: ada: 3 shots, 1 left out, 3 fine-tuning steps"

    # As if it had been killed before the end was stored: what is finished is not made again.
    written = opened.folder.avatar("ada").stat().st_mtime_ns
    with durable_connection(opened.folder.root / "jobs.sqlite") as connection:
        connection.execute("UPDATE jobs SET state = 'running'")
    last = reopened(opened, monkeypatch)
    assert last.jobs.get(job.number).wait(timeout=LONG)
    assert [one.words for one in last.jobs.progress()] == ["finished: ada: 3 shots, 3 fine-tuning steps"]
    assert last.folder.avatar("ada").stat().st_mtime_ns == written
    last.close()


def test_what_a_killed_process_left_of_an_avatar_is_deleted_at_the_next_start(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("eve", "no name"):
        (studio.folder.shots / name).mkdir()
        (studio.folder.shots / name / "1.jpg").write_bytes(b"")
    studio.folder.consent("eve").write_text("{}")
    opened = reopened(studio, monkeypatch)
    assert files(opened) == {"shots/no name/1.jpg"}
    opened.close()


def test_a_failure_names_the_reason_frees_the_name_and_keeps_the_draft(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faceless(path: Path, **_: Any) -> Any:
        raise ValueError(f"no face was found in {path}")

    monkeypatch.setattr(person_files, "shots_and_outcomes", faceless)
    token = draft(studio, tmp_path / "in")
    for _ in range(2):
        job = studio.create(token, "ada", FORM)
        assert job.wait(timeout=LONG)
        assert job.progress().words == "failed: no face was found in the images"
        assert files(studio) <= {"avatars/report.jsonl"}


def test_an_unknown_avatar_or_driver_is_an_error(studio: Studio) -> None:
    with pytest.raises(ValueError, match="there is no avatar 'ada': choose one of the gallery"):
        studio.drive("ada", DriveSettings(), example="a rendered person speaks")
    with pytest.raises(ValueError, match="is not a valid avatar name"):
        studio.edit("../ada", {})


def test_bundled_people_have_images_and_consent(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def fake(job: Job, folder: Any, person: Any, **_: Any) -> str:
        made.append((person.name, len(read_consent(person.consent).shots), read_consent(person.consent).basis))
        folder.avatar(person.name).write_bytes(b"")
        return "made"

    monkeypatch.setattr(session, "make_avatar", fake)
    for name in ("head", "astronaut"):
        assert studio.example(name).wait(timeout=LONG)
        with pytest.raises(ValueError, match="is in the gallery already"):
            studio.example(name)
    assert made == [("head", 8, "synthetic"), ("astronaut", 1, "public_domain")]
    with pytest.raises(ValueError, match="the bundled people are head, astronaut"):
        studio.example("eve")


def test_tiles_show_landmarks_or_the_reason(tmp_path: Path) -> None:
    for name in ("001_good.jpg", "002_two.jpg", "003_broken.jpg"):
        (tmp_path / name).write_bytes(b"")
    frame = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    points = np.full((1, 68, 2), 0.5, np.float32)

    def run(function: Any, path: str) -> Any:
        if "good" in path:
            return frame, points, "score 1.20, face 200 px"
        if "two" in path and function.__name__ == "examine":
            raise ValueError(f"no usable image in {path} (several faces: 1), or {_BY_HAND}")
        if "two" in path:
            return np.full((SIZE, SIZE, 3), 7, np.uint8)
        raise MediaError(MediaFault.UNDECODABLE, f"cannot read {path}: it is damaged")

    good, two, broken = tiles(tmp_path, run=run)
    assert (good.usable, good.caption) == (True, "good.jpg: score 1.20, face 200 px")
    assert good.picture[SIZE // 2, SIZE // 2].tolist() == [0, 255, 0]
    assert (two.usable, two.caption) == (False, "two.jpg: left out: no usable image in it (several faces: 1)")
    assert (two.picture == 7).all()
    assert (broken.usable, broken.caption) == (False, "broken.jpg: left out: cannot read it: it is damaged")
    assert (broken.picture == 128).all()


def test_an_origin_is_in_plain_words(tmp_path: Path) -> None:
    assert set(WORDS) == set(Verdict)
    file = tmp_path / "x" / "notes.txt"
    file.parent.mkdir()
    file.write_text("no picture")
    found = origin_of(file, run=lambda function, path, **_: function(path, **_without_limits(_)))
    assert found.verdict is Verdict.UNREADABLE
    assert "could not be checked" in found.words
    assert str(tmp_path) not in json.dumps(found.reasons), "paths of the server are not shown"


def _without_limits(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "within"}


def test_a_table_of_jobs_is_escaped() -> None:
    table = table_of([(1, "<script>", "waiting & seeing")])
    assert "<script>" not in table
    assert "<td>&lt;script&gt;</td><td>waiting &amp; seeing</td>" in table
    assert "No jobs yet" in table_of([])


def test_results_never_overwrite_each_other(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda text: "20260101-000000")
    (studio.folder.results / "ada-20260101-000000-01.mp4").write_bytes(b"")
    (studio.folder.results / "ada-20260101-000000-02.mp4.provenance.json").write_bytes(b"")
    given = [studio.folder.result("ada", ".mp4").name for _ in range(2)]
    assert given == ["ada-20260101-000000-03.mp4", "ada-20260101-000000-04.mp4"], "jobs of the same second, too"
