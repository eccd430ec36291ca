"""The studio's server over real connections: its operations, its password and limits, and hostile clients."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason='needs the extra "studio"')

import httpx
import uvicorn

from th_jax.studio import folder, guard
from th_jax.studio.entrance import WRONG_SECRETS
from th_jax.studio.guard import POLICY
from th_jax.studio.jobs import Job, Kind, Request, State, UserJobs, Work
from th_jax.studio.limits import Limits
from th_jax.studio.making import ConsentForm
from th_jax.studio.page import server
from th_jax.studio.session import Studio
from th_jax.studio.studios import Studios
from th_jax.studio.users import Accounts, digest_of

SOON = 30.0
"""Seconds within which a busy machine answers."""

LIMIT = 3 * 2**20
"""Maximum size of a request in these tests; Starlette keeps files of up to 1 MiB in memory."""

FORM = {"name": "ada", "subject": "Ada", "basis": "self"}


@contextmanager
def serving(studios: Studios, *, accounts: Accounts | None = None, requests: int | None = None) -> Iterator[str]:
    app = server(
        studios, host="127.0.0.1" if accounts is None else "0.0.0.0", accounts=accounts, requests=requests
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        while not running.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the studio's folder and the folder of temporary files, and nothing else."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def studios(place: Path) -> Iterator[Studios]:
    studios = Studios(place / "studio")
    studios.start()
    yield studios
    studios.close()


@pytest.fixture(scope="module")
def studio(studios: Studios) -> Studio:
    return studios.of("")


@pytest.fixture(scope="module")
def address(studios: Studios, place: Path) -> Iterator[str]:
    (place / "temporary").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(place / "temporary"))
        patch.setattr(guard, "MAX_UPLOAD_BYTES", LIMIT)
        with serving(studios) as address:
            yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=SOON) as client:
        yield client


@pytest.fixture(scope="module", params=["/avatars", "/gradio_api/upload"])
def upload(request: pytest.FixtureRequest) -> str:
    """The two ways in for files: the operations, and the page's own."""
    return str(request.param)


def files(place: Path) -> set[str]:
    """All files but the database of jobs and the locks of the workers."""
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    return {name for name in found if "jobs.sqlite" not in name and "/workers/" not in name}


def becomes(place: Path, expected: set[str]) -> None:
    """The server notices a lost connection in its own time."""
    until = time.monotonic() + SOON
    while files(place) != expected and time.monotonic() < until:
        time.sleep(0.02)
    assert files(place) == expected


def done(job: Job) -> tuple[Path | None, str]:
    """Ends at once."""
    return None, "done"


def test_jobs_are_made_and_reported(client: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/health/ready").json() == {"ready": True, "waiting": 0}
    asked: list[Any] = []

    def create(token: str, name: str, form: Any) -> Any:
        stored = sorted(path.name for path in (studio.folder.drafts / token).iterdir())
        asked.append((name, form, stored))
        studio.discard(token)
        return studio.jobs.submit(Request(Kind.AVATAR, "ada", {"shots": "shots/ada", "meta": "heads64"}))

    monkeypatch.setattr(studio, "create", create)
    monkeypatch.setattr(studio, "work_of", lambda job: Work(done))
    form = FORM | {"uses": "private,art", "expires": "2099-01-31"}
    answer = client.post("/avatars", data=form, files=[("shots", ("../../a.png", b"x")), ("shots", ("b.png", b"y"))])
    assert answer.status_code == 202
    assert asked == [
        ("ada", ConsentForm("Ada", "self", ("private", "art"), "", "2099-01-31"), ["001_001_a.png", "002_002_b.png"])
    ]
    number = answer.json()["job"]
    assert studio.jobs.get(number).wait(timeout=SOON)
    told = client.get(f"/jobs/{number}").json()
    assert (told["title"], told["state"], told["stage"], told["result"]) == ("avatar ada", "finished", "done", None)
    assert client.get("/jobs").json() == [told]
    missing = client.get(f"/jobs/{number}/result")
    assert (missing.status_code, missing.json()) == (409, {"error": f"job {number} has no result"})
    assert client.delete(f"/jobs/{number}").json()["state"] == "finished", "too late"
    studio.jobs.forget("ada")
    assert client.get(f"/jobs/{number}").json() == {"error": f"there is no job {number}"}
    assert list(studio.folder.uploads.iterdir()) == []


def test_a_video_is_asked_for_made_and_downloaded(client: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def drive(avatar: str, settings: Any, *, upload: Path | None, example: str | None) -> Job:
        assert (avatar, settings.suffix, example) == ("ada", ".gif", None)
        assert upload is not None
        (studio.folder.results / "ada-1.gif").write_bytes(upload.read_bytes())
        return studio.jobs.submit(Request(Kind.VIDEO, "ada", {"out": "results/ada-1.gif"}))

    out = studio.folder.results / "ada-1.gif"
    monkeypatch.setattr(studio, "drive", drive)
    monkeypatch.setattr(studio, "work_of", lambda job: Work(lambda job: (out, "1 frame")))
    settings = json.dumps({"suffix": ".gif"})
    answer = client.post("/videos", data={"avatar": "ada", "settings": settings}, files={"driver": ("d.mp4", b"film")})
    assert answer.status_code == 202, answer.text
    number = answer.json()["job"]
    assert studio.jobs.get(number).wait(timeout=SOON)
    result = client.get(f"/jobs/{number}/result")
    assert (result.content, result.headers["content-type"]) == (b"film", "image/gif")
    assert "attachment" in result.headers["content-disposition"]
    out.unlink()
    assert client.get(f"/jobs/{number}/result").status_code == 409
    studio.jobs.forget("ada")


def test_a_job_is_canceled(client: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        begun.set()
        while True:
            job.advance(1, 2)
            time.sleep(0.01)

    monkeypatch.setattr(studio, "work_of", lambda job: Work(work))
    job, waiting = (studio.jobs.submit(Request(Kind.VIDEO, "ada", {})) for _ in range(2))
    assert begun.wait(SOON)
    assert client.get("/health/ready").json() == {"ready": True, "waiting": 1}
    monkeypatch.setattr(UserJobs, "MOST", 2)
    assert client.get("/health/ready").json()["ready"] is True, "one of two waits"
    assert client.delete(f"/jobs/{waiting.number}").json()["state"] == "cancelled"
    client.delete(f"/jobs/{job.number}")
    assert job.wait(timeout=SOON)
    assert client.get(f"/jobs/{job.number}").json()["state"] == State.CANCELLED
    studio.jobs.forget("ada")


def test_the_operations_are_described(client: Any) -> None:
    described = client.get("/openapi.json").json()
    assert {"/avatars", "/videos", "/jobs/{number}", "/jobs/{number}/result", "/verify", "/health/ready"} <= set(
        described["paths"]
    )
    assert described["paths"]["/avatars"]["post"]["security"] == [{"HTTPBasic": []}]


IMAGE = {"shots": ("a.png", b"x")}


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [
        ("/avatars", {"data": FORM | {"name": "../x"}, "files": IMAGE}, "is not a valid avatar name"),
        ("/avatars", {"data": FORM, "files": {"shots": ("a.exe", b"x")}}, "neither a photo"),
        ("/avatars", {"data": FORM, "files": {"shots": ("<img src=x>.svg", b"x")}}, "neither a photo"),
        ("/avatars", {"data": FORM | {"basis": "war"}, "files": IMAGE}, "why the images may be used"),
        ("/avatars", {"data": {"name": "ada"}, "files": IMAGE}, "subject: Field required; basis: Field required"),
        ("/avatars", {"data": FORM}, "shots: Field required"),
        ("/avatars", {"json": FORM}, "shots: Field required"),
        ("/avatars", {"content": b"\xff" * 99, "headers": {"content-type": "image/png"}}, "shots: Field required"),
        ("/videos", {"data": {"avatar": "nobody", "example": "x"}}, "there is no avatar 'nobody': choose one"),
        ("/videos", {"data": {"avatar": "nobody", "settings": "[]"}}, "not settings of a drive"),
        ("/verify", {"data": {"file": "/etc/passwd"}}, "file: "),
    ],
)
def test_errors_are_sentences_and_nothing_is_kept(
    client: Any, studio: Studio, place: Path, path: str, options: dict[str, Any], error: str
) -> None:
    before, jobs = files(place), client.get("/jobs").json()
    answer = client.post(path, **options)
    assert (answer.status_code, error in answer.json()["error"]) == (422, True), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert str(place) not in answer.text
    assert (files(place), client.get("/jobs").json()) == (before, jobs)


@pytest.mark.parametrize("boundary", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_form_that_is_none_is_an_error(client: Any, upload: str, boundary: str, place: Path) -> None:
    before = files(place)
    answer = client.post(upload, content=b"--y\r\nnothing", headers={"content-type": boundary})
    assert answer.status_code == 400
    assert files(place) == before


def test_a_full_queue_or_disk_is_an_error(client: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MIN_FREE_BYTES", 2**62)
    answer = client.post("/avatars", data=FORM, files=IMAGE)
    assert (answer.status_code, "MiB left" in answer.json()["error"]) == (507, True)
    monkeypatch.undo()
    monkeypatch.setattr(UserJobs, "MOST", 0)
    monkeypatch.setattr(studio, "drive", lambda *_, **__: studio.jobs.submit(Request(Kind.VIDEO, "ada", {})))
    answer = client.post("/videos", data={"avatar": "ada"})
    assert (answer.status_code, "jobs are waiting" in answer.json()["error"]) == (429, True)
    assert client.get("/health/ready").json()["ready"] is False


@pytest.mark.parametrize(
    "path", ["/jobs/x", "/jobs/-1", "/jobs/1e9", "/jobs/99999999999999999999", "/jobs/..%2f..%2fetc%2fpasswd"]
)
def test_there_are_no_other_jobs(client: Any, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%2e%2e", "-rf", "a%00b", "%3Cscript%3E"])
def test_no_other_name_is_deleted(client: Any, place: Path, name: str) -> None:
    before = files(place)
    assert client.delete(f"/avatars/{name}").status_code in (404, 405, 422)
    assert files(place) == before


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"host": "evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_get_no_answer(client: Any, place: Path, method: str, headers: dict[str, str]) -> None:
    before = files(place)
    for path in (
        "/avatars",
        "/videos",
        "/verify",
        "/jobs/1",
        "/avatars/ada",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
    ):
        assert client.request(method, path, headers=headers, files=IMAGE).status_code == 403, path
    assert files(place) == before


def test_the_page_has_a_policy_and_other_hosts_do_not_see_it(client: Any) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["content-security-policy"]) == (200, POLICY)
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403


def test_files_are_stored_in_the_folder_and_no_others_are_served(client: Any, studio: Studio) -> None:
    (stored,) = client.post("/gradio_api/upload", files={"files": ("../../x.jpg", b"x")}).json()
    assert Path(stored).resolve().is_relative_to(studio.folder.uploads)
    consent = studio.folder.consents / "ada.consent.json"
    consent.write_text("{}")
    database = studio.folder.root / "jobs.sqlite"
    others = studio.folder.results / ".." / "consents" / "ada.consent.json"
    for path in (consent, database, Path("/etc/passwd"), others, Path("/proc/self/environ")):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    consent.unlink()
    Path(stored).unlink()


def raw(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def head(address: str, path: str, *more: str) -> bytes:
    host = address.removeprefix("http://")
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: multipart/form-data; boundary=x", *more, "", ""]
    return "\r\n".join(lines).encode()


PART = b'--x\r\nContent-Disposition: form-data; name="shots"; filename="a.png"\r\n\r\n'


def status_of(connection: socket.socket) -> int:
    line = connection.makefile("rb").readline()
    assert line.startswith(b"HTTP/1.1 "), line
    return int(line.split()[1])


def test_a_request_that_says_it_is_too_large_is_not_read(address: str, upload: str, place: Path) -> None:
    before = files(place)
    with raw(address) as connection:
        connection.sendall(head(address, upload, f"Content-Length: {LIMIT + 1}"))
        assert status_of(connection) == 413
    assert files(place) == before


def test_a_request_that_does_not_say_so_is_cut_off(address: str, upload: str, place: Path) -> None:
    before = files(place)
    with raw(address) as connection:
        connection.sendall(head(address, upload, "Transfer-Encoding: chunked"))
        block = PART + b"\0" * 2**16
        sent = 0
        try:
            while sent < 100 * LIMIT:
                connection.sendall(b"%x\r\n" % len(block) + block + b"\r\n")
                sent, block = sent + len(block), b"\0" * 2**16
        except OSError:  # it no longer listens
            pass
        assert LIMIT < sent < 20 * LIMIT, "what the connection's buffers hold"
    becomes(place, before)


def test_a_request_over_the_limit_is_answered(address: str, upload: str, place: Path) -> None:
    before = files(place)
    with raw(address) as connection:
        body = PART + b"\0" * LIMIT
        connection.sendall(head(address, upload, "Transfer-Encoding: chunked") + b"%x\r\n" % len(body) + body)
        assert status_of(connection) == 413
    becomes(place, before)


def test_a_client_that_goes_away_leaves_nothing(address: str, upload: str, place: Path) -> None:
    before = files(place)
    with raw(address) as connection:
        connection.sendall(head(address, upload, f"Content-Length: {LIMIT}") + PART + b"\0" * (2 * 2**20))
        time.sleep(0.1)
    becomes(place, before)


def test_a_client_that_dawdles_is_cut_off(
    address: str, upload: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(place)
    monkeypatch.setattr(guard, "PATIENCE", 0.3)
    with raw(address) as connection:
        connection.sendall(head(address, upload, f"Content-Length: {LIMIT}") + PART + b"\0")
        assert status_of(connection) == 408
    becomes(place, before)


def test_the_password_is_asked_for_before_the_body_is_read(tmp_path: Path) -> None:
    studios = Studios(tmp_path / "studio")
    studio, accounts = studios.of(""), Accounts({"studio": digest_of("long enough")})
    with serving(studios, accounts=accounts) as address, httpx.Client(base_url=address, timeout=SOON) as client:
        assert client.get("/config").status_code == 401
        for path in ("/jobs", "/avatars", "/jobs/1/result"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"].split()[0]) == (401, "Basic")
            assert answer.json() == {"error": "the password or token is missing or wrong"}
        for wrong in (("studio", "wrong one"), ("other", "long enough")):
            assert client.get("/jobs", auth=wrong).status_code == 401
        assert client.get("/jobs", headers={"authorization": "Basic !"}).status_code == 401
        assert client.get("/jobs", auth=("studio", "long enough")).json() == []
        assert client.get("/health/live").json() == {"live": True}
        for path in ("/avatars", "/gradio_api/upload"):
            with raw(address) as connection:
                connection.sendall(head(address, path, "Content-Length: 1000000") + PART)
                assert status_of(connection) == 401
        assert list(studio.folder.uploads.iterdir()) == []
        assert client.get("/config", auth=("studio", "long enough")).status_code == 200
        for _ in range(WRONG_SECRETS):
            client.get("/jobs", auth=("studio", "wrong one"))
        answer = client.get("/jobs", auth=("studio", "wrong one"))
        assert (answer.status_code, 1 <= int(answer.headers["retry-after"]) <= 60) == (429, True)
    studios.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Studios, str]]:
    """A studio of two users, whose tokens are their names."""
    root = tmp_path_factory.mktemp("shared") / "studio"
    limits = Limits(requests=100, jobs=2, disk_bytes=2**20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "MAX_UPLOAD_BYTES", LIMIT)
        studios = Studios(root, users=["ada", "eve"], limits=limits)
        for user in ("ada", "eve"):
            patch.setattr(studios.of(user), "work_of", lambda job: Work(done))
        studios.start()
        accounts = Accounts({name: digest_of(f"token of {name}") for name in ("ada", "eve")})
        with serving(studios, accounts=accounts, requests=limits.requests) as address:
            yield studios, address
        studios.close()


@contextmanager
def client_of(shared: tuple[Studios, str], user: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared[1], timeout=SOON, auth=(user, f"token of {user}")) as client:
        yield client


def test_users_see_neither_jobs_nor_files_of_each_other(shared: tuple[Studios, str]) -> None:
    studios, _ = shared
    his, job = studios.of("ada"), studios.of("ada").jobs.submit(Request(Kind.VIDEO, "ada", {}))
    result = his.folder.results / "ada-1.mp4"
    result.write_bytes(b"film")
    his.folder.consent("ada").write_text("{}")
    with client_of(shared, "ada") as ada, client_of(shared, "eve") as eve:
        assert ada.get(f"/gradio_api/file={result}").content == b"film"
        assert ada.get(f"/jobs/{job.number}").status_code == 200
        assert [one["job"] for one in ada.get("/jobs").json()] == [job.number]
        assert eve.get("/jobs").json() == []
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/result")):
            assert eve.request(method, f"/jobs/{job.number}{path}").status_code == 404, (method, path)
        up = studios.of("eve").folder.results / ".." / ".." / "ada" / "results" / "ada-1.mp4"
        for path in (result, up, his.folder.consent("ada"), studios.root / "jobs.sqlite"):
            assert eve.get(f"/gradio_api/file={path}").status_code in (403, 404), path
        for name in ("../ada/avatars/ada", "..%2fada", "ada"):
            asked = {"avatar": name, "example": "a rendered person speaks"}
            assert eve.post("/videos", data=asked).status_code == 422
        eve.delete("/avatars/ada")
        assert result.exists()
        (stored,) = ada.post("/gradio_api/upload", files={"files": ("x.jpg", b"x")}).json()
        assert Path(stored).is_relative_to(studios.shared.uploads)
        assert eve.get("/avatars").json() == []
    with httpx.Client(base_url=shared[1], timeout=SOON) as other:
        for wrong in (
            ("ada", "token of eve"),
            ("eve", "token of ada"),
            ("", ""),
            ("studio", "token of ada"),
            ("..", "x"),
        ):
            assert other.get("/jobs", auth=wrong).status_code == 401, wrong
        for _ in range(WRONG_SECRETS + 1):
            answer = other.get("/jobs", auth=("nobody", "a guess"))
        assert answer.status_code == 429
        assert other.get("/jobs", auth=("ada", "token of ada")).status_code == 200, "another user of the same address"
    assert sorted(path.name for path in (studios.root / "users").iterdir()) == ["ada", "eve"]


def test_more_than_the_limits_is_an_error_before_anything_is_written(shared: tuple[Studios, str]) -> None:
    studios, _ = shared
    hers = studios.of("eve")
    with client_of(shared, "eve") as eve, client_of(shared, "ada") as ada:
        for path in ("/avatars", "/verify", "/gradio_api/upload"):
            answer = eve.post(path, data=FORM, files={"shots": ("a.png", b"x" * 2**21)})
            assert answer.status_code == 507, path
            assert "of the 0.00097656 GiB that are allowed" in answer.json()["error"]
        assert list(hers.folder.uploads.iterdir()) == list(hers.folder.drafts.iterdir()) == []
        for _ in range(2):
            hers._submit(Request(Kind.VIDEO, "eve", {}))
        answer = eve.post("/avatars", data=FORM, files={"shots": ("a.png", b"x")})
        assert answer.status_code == 429
        assert "too many jobs: 2 an hour are allowed" in answer.json()["error"]
        assert 3500 <= int(answer.headers["retry-after"]) <= 3600
        assert list(hers.folder.drafts.iterdir()) == []
        answers = [eve.get("/jobs") for _ in range(110)]
        assert answers[-1].status_code == 429
        assert "100 a minute are allowed" in answers[-1].json()["error"]
        assert ada.get("/jobs").status_code == 200, "another user has limits of their own"
        assert eve.get("/config").status_code == 200, "the page itself is not counted"


def test_nothing_is_written_outside_the_folder(place: Path) -> None:
    """After all others of this file."""
    assert sorted(os.listdir(place)) == ["studio", "temporary"]
    assert list((place / "temporary").iterdir()) == []
