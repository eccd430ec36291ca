"""Studios of several users: their folders, what is deleted after a time, and processes that do their jobs."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from th_jax.studio.drives import DRIVERS
from th_jax.studio.folder import DRAFT_SECONDS
from th_jax.studio.jobs import Job, Kind, Request, State, UserJobs, Work
from th_jax.studio.session import Studio
from th_jax.studio.studios import Studios
from th_jax.studio.workers import Workers

SOON = 30.0
DAY = 86400.0


def result_of(studio: Studio, name: str, *, written: float, driver: str = "driver.mp4") -> Path:
    path = studio.folder.results / name
    for file in (path, path.with_name(f"{name}.provenance.json"), studio.folder.drivers / driver):
        file.write_bytes(b"x")
        os.utime(file, (written, written))
    return path


def test_each_user_has_a_folder_and_only_one_studio_uses_it(tmp_path: Path) -> None:
    studios = Studios(tmp_path / "studio", users=["ada", "eve"])
    assert studios.of("ada").folder.root == studios.root / "users" / "ada"
    assert studios.of("ada") is studios.of("ada")
    assert studios.root.stat().st_mode & 0o077 == 0
    for users in (["ada"], None):
        with pytest.raises(ValueError, match="another studio uses"):
            Studios(tmp_path / "studio", users=users)
    studios.close()
    Studios(tmp_path / "studio").close()


def test_results_are_deleted_after_a_time_and_nothing_else(tmp_path: Path) -> None:
    now = [time.time()]
    studios = Studios(tmp_path / "studio", users=["ada", "eve"], keep_seconds=7 * DAY, clock=lambda: now[0])
    ada, eve = studios.of("ada"), studios.of("eve")
    begin, running = threading.Event(), threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        if job.request.avatar == "slow":
            running.set()
            assert begin.wait(SOON)
        return None if job.request.kind is Kind.AVATAR else ada.folder.root / job.request.options["out"], "done"

    ada.work_of = lambda job: Work(work)  # type: ignore[method-assign]
    ended = result_of(ada, "a-1.mp4", written=now[0])
    slow = result_of(ada, "slow-1.mp4", written=now[0], driver="slow.mp4")
    still = result_of(eve, "a-1.png", written=now[0] + 2 * DAY)
    bundled = ada.folder.drivers / next(iter(DRIVERS.values()))
    for path in (bundled, ada.folder.avatar("a"), ada.folder.consent("a")):
        path.write_bytes(b"x")
        os.utime(path, (now[0], now[0]))
    studios.shared.queue.start()
    options = {"out": "results/a-1.mp4", "driver": "drivers/driver.mp4"}
    made = ada.jobs.submit(Request(Kind.AVATAR, "a", {}))
    done = ada.jobs.submit(Request(Kind.VIDEO, "a", options))
    late = ada.jobs.submit(
        Request(Kind.VIDEO, "slow", {"out": "results/slow-1.mp4", "driver": "drivers/slow.mp4"})
    )  # fmt: skip
    assert done.wait(timeout=SOON)
    assert running.wait(SOON)
    now[0] += 6 * DAY
    studios.sweep()
    assert all(path.exists() for path in (ended, slow, still))
    assert len(ada.jobs.progress()) == 3
    now[0] += 1.01 * DAY
    studios.sweep()
    assert not ended.exists()
    assert not ended.with_name("a-1.mp4.provenance.json").exists()
    assert not (ada.folder.drivers / "driver.mp4").exists()
    assert [one.number for one in ada.jobs.progress()] == [late.number, made.number], "avatars stay in the list"
    kept = (slow, ada.folder.drivers / "slow.mp4", bundled, ada.folder.avatar("a"), ada.folder.consent("a"))
    assert all(path.exists() for path in kept), "of a running job, and avatars"
    assert still.exists()
    begin.set()
    assert late.wait(timeout=SOON)
    now[0] += 2 * DAY
    studios.sweep()
    assert not slow.exists()
    assert not still.exists(), "of another user, later"
    studios.close()


def test_yesterdays_uploads_are_deleted_while_the_studio_runs(tmp_path: Path) -> None:
    now = [time.time()]
    studios = Studios(tmp_path / "studio", users=["ada"], clock=lambda: now[0])
    result = result_of(studios.of("ada"), "a-1.mp4", written=0.0)
    uploads = [
        studios.of("ada").folder.uploads / "x",
        studios.of("ada").folder.drafts / "y",
        studios.shared.uploads / "z",
    ]
    for upload in uploads:
        upload.mkdir()
    studios.sweep()
    assert all(upload.exists() for upload in uploads)
    now[0] += DRAFT_SECONDS + 60
    studios.start(workers=0)  # it looks at once
    until = time.monotonic() + SOON
    while any(upload.exists() for upload in uploads) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(upload.exists() for upload in uploads)
    assert result.exists(), "results are kept unless a time is given"
    studios.close()


def test_jobs_of_a_user_who_is_not_let_in_any_more_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studios = Studios(tmp_path / "studio", users=["ada"])
    job = studios.of("ada").jobs.submit(Request(Kind.VIDEO, "a", {}))
    studios.close()
    monkeypatch.setattr(Studio, "_video_work", lambda self, job: (None, self.folder.root.name))
    studios = Studios(tmp_path / "studio", users=["eve"])
    studios.start()
    found = studios.of("ada").jobs.get(job.number)
    assert found.wait(timeout=SOON)
    assert found.progress().words == "finished: ada"
    studios.close()
    studios = Studios(tmp_path / "studio", users=["eve"], keep_seconds=60.0)
    result = result_of(studios.of("ada"), "a-1.mp4", written=0.0)
    studios.sweep()
    assert not result.exists()
    studios.close()


def test_a_job_whose_folder_cannot_be_opened_fails_and_the_others_go_on(tmp_path: Path) -> None:
    studios = Studios(tmp_path / "studio", users=["ada"])
    bad = UserJobs(studios.shared.queue, user="bad").submit(Request(Kind.VIDEO, "a", {}))
    (studios.root / "users" / "bad").write_bytes(b"no folder")
    good = studios.of("ada").jobs.submit(Request(Kind.VIDEO, "a", {}))
    studios.of("ada").work_of = lambda job: Work(lambda job: (None, "done"))  # type: ignore[method-assign]
    studios.start()
    assert good.wait(timeout=SOON)
    assert bad.progress().state is State.FAILED
    assert "internal error" in bad.progress().stage
    studios.close()


WORKER = """
import sys
print("begun", file=open(sys.argv[1], "a"), flush=True)
sys.stdin.read()
"""


def test_a_worker_that_is_killed_is_replaced_and_all_end_with_the_studio(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = Workers([sys.executable, "-c", WORKER, str(log)], 2, pause=0.0)

    def begun(count: int) -> None:
        until = time.monotonic() + SOON
        while (not log.exists() or len(log.read_text().split()) < count) and time.monotonic() < until:
            time.sleep(0.01)
        assert len(log.read_text().split()) == count

    begun(2)
    os.kill(workers.processes[0].pid, signal.SIGKILL)
    begun(3)
    workers.close()
    assert [process.returncode for process in workers.processes.values()] == [0, 0]
    Workers(["/nonexistent"], 0).close()


def test_a_worker_of_the_command_does_jobs_until_its_input_ends(tmp_path: Path) -> None:
    studios = Studios(tmp_path / "studio", users=["ada"])
    (tmp_path / "users.json").write_text('{"ada": "' + "0" * 64 + '"}')
    command = [sys.executable, "-m", "th_jax.cli.main", "studio", "--worker"]
    workers = Workers([*command, "--folder", str(tmp_path / "studio"), "--users", str(tmp_path / "users.json")], 1)
    options = {"driver": "drivers/none.mp4", "out": "results/none.mp4", "settings": "{}"}
    job = studios.of("ada").jobs.submit(Request(Kind.VIDEO, "ada", options))
    assert job.wait(timeout=120.0)
    worker = workers.processes[0].pid
    assert os.getpriority(os.PRIO_PROCESS, worker) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert (os.getsid(worker), os.getpgid(worker)) == (os.getsid(0), worker)
    found = job.progress()
    assert (found.state, "there is no avatar 'ada'" in found.stage) == (State.FAILED, True)
    workers.close()
    assert studios.close()
    assert list((tmp_path / "studio" / "workers").iterdir()) == []
