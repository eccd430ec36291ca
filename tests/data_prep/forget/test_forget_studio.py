"""Forgetting a person reaches the folders of studios: images, uploads, avatars, results, consent and jobs, and no others."""

import json
from pathlib import Path

import pytest

from data_prep.forget import studio as module
from data_prep.forget.command import main
from data_prep.forget.traces import find_traces, remove_traces
from tests import commands
from tests.data_prep.folders import files
from th_jax.consent import Basis, make_consent, write_consent
from th_jax.studio.drives import DRIVERS
from th_jax.studio.folder import StudioFolder
from th_jax.studio.jobs import Job, JobQueue, Kind, Request, UserJobs, Work

DRIVER = "drivers/0123456789abcdef_001_{}.mp4"


def file(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def keep(home: StudioFolder, jobs: UserJobs, name: str) -> None:
    """What a studio keeps of a person whose avatar was made and driven."""
    photo = file(home.shots / name / "001_a.jpg", f"photo of {name}".encode())
    write_consent(home.consent(name), make_consent(photo.parent, subject=name, basis=Basis.SELF))
    for path in (
        home.landmarks(name),
        home.avatar(name),
        home.root / DRIVER.format(name),
        home.root / "drafts/0af/1.jpg",
    ):
        file(path)
    file(home.drafts / f"draft of {name}" / "001_a.jpg")
    out = home.results / f"{name}-20260101-000000-01.mp4"
    for path in (out, out.with_name(f"{out.name}.provenance.json")):
        file(path)
    jobs.submit(Request(Kind.AVATAR, name, {"shots": f"shots/{name}", "draft": f"draft of {name}", "meta": "heads64"}))
    jobs.submit(Request(Kind.VIDEO, name, {"driver": DRIVER.format(name), "out": f"results/{out.name}"}))
    bundled = f"drivers/{next(iter(DRIVERS.values()))}"
    file(home.root / bundled)
    jobs.submit(Request(Kind.VIDEO, name, {"driver": bundled, "out": "results/none.mp4"}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A closed studio of two users, each of whom has an avatar of Ada and one of Adam."""
    root = tmp_path / "studio"
    root.mkdir()
    queue = JobQueue(root / "jobs.sqlite", lambda job: Work(_nothing))
    for user in ("eve", "bob"):
        home = StudioFolder(root / "users" / user)
        for name in ("ada", "adam"):
            keep(home, UserJobs(queue, user=user), name)
        home.close()
    for name in ("ada", "adam"):
        file(root / "uploads" / ("0" * 64) / f"{name}.jpg", f"photo of {name}".encode())
    queue.close()
    return root


def _nothing(job: Job) -> tuple[Path | None, str]:
    return None, ""


def test_everything_of_the_person_goes_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    assert main([str(root), "ada", "--everywhere", "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert {name for name in files(root) if "sqlite" not in name} == {name for name in before if "sqlite" not in name}
    assert f"{root / 'jobs.sqlite'}: job 1\n" in listed
    assert main([str(root), "ada", "--everywhere"]) == 0
    assert capsys.readouterr().out.replace("removed", "") == listed.replace("would be removed (dry run)", "")
    gone = {name for name in before - files(root) if "sqlite" not in name}
    assert gone == {
        name for name in before if "ada" in name.replace("adam", "").replace("_ada", "ada") and "lock" not in name
    }
    assert all(f"users/{user}/avatars/ada.safetensors" in gone for user in ("eve", "bob"))
    assert {f"uploads/{'0' * 64}/ada.jpg", f"users/eve/{DRIVER.format('ada')}"} <= gone
    assert not (root / "users" / "eve" / "shots" / "ada").exists()
    content = b"".join(path.read_bytes() for path in root.glob("jobs.sqlite*"))
    assert b"shots/adam" in content
    assert b'shots/ada"' not in content, "not only unlinked in the database's file"
    queue = JobQueue(root / "jobs.sqlite", lambda job: Work(_nothing))
    for user in ("eve", "bob"):
        assert {one.request.avatar for one in UserJobs(queue, user=user).progress()} == {"adam"}
        assert len(UserJobs(queue, user=user).progress()) == 3
    queue.close()


def test_the_given_record_stays(root: Path, tmp_path: Path) -> None:
    record = root / "users" / "eve" / "consents" / "ada.consent.json"
    assert main([str(root), "ada", "--everywhere", "--consent", str(record)]) == 0
    assert record.exists()
    assert not (root / "users" / "eve" / "shots" / "ada").exists()


def test_a_running_studio_is_an_error_and_nothing_is_deleted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    StudioFolder(root).close()  # makes the lock
    running, before = StudioFolder(root), files(root)
    assert commands.forget([str(root), "ada", "--everywhere"]) == 1
    assert "a studio uses" in capsys.readouterr().err
    assert files(root) == before
    running.close()


@pytest.mark.parametrize(
    "options", ["[]", "{", '"x"', json.dumps({"driver": "../../../outside", "out": "/etc/passwd"})]
)
def test_damaged_jobs_lead_nowhere_else(root: Path, tmp_path: Path, options: str) -> None:
    outside = file(tmp_path / "outside")
    queue = JobQueue(root / "jobs.sqlite", lambda job: Work(_nothing))
    queue.change("UPDATE jobs SET options = ? WHERE number = 1", options)
    queue.close()
    traces = find_traces(tmp_path, ["ada"])
    remove_traces(traces)
    assert outside.exists()
    assert not (root / "users" / "eve" / "avatars" / "ada.safetensors").exists()


def test_another_file_of_this_name_is_not_searched(tmp_path: Path) -> None:
    other = file(tmp_path / "jobs.sqlite", b"no database of a studio" * 100)
    assert other in find_traces(tmp_path, ["ada"]).doubts


def test_names_are_those_of_the_studio(tmp_path: Path) -> None:
    home = StudioFolder(tmp_path)
    for name in ("avatars", "shots", "drafts", "drivers", "results", "points", "consents", "uploads"):
        assert getattr(home, name) == tmp_path / getattr(module, name.upper())
    assert home.consent("ada").parent == home.consents
    assert (tmp_path / module.LOCK_FILE).exists()
    home.close()
