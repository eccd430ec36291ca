"""The study server: 4xx responses with reasons, and every acknowledged answer after a real kill -9."""

import functools
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_user_study_frames import write_frames

pytest.importorskip("flask", reason='needs the extra "study"')

from commands import study as main

from th_jax.evaluation.user_study.answer_key import StudyKey
from th_jax.evaluation.user_study.build import build_study
from th_jax.evaluation.user_study.serve import make_app

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, StudyKey]:
    write_frames(tmp_path / "frames")
    return tmp_path / "study", build_study(tmp_path / "frames", tmp_path / "study", triplets=6, checks=1)


def sheet(key: StudyKey, rater: str, choices: dict[str, int]) -> bytes:
    answers = [{"triplet": t, "choice": c, "milliseconds": 1, "position": 0} for t, c in choices.items()]
    fields = {"schema": 1, "study": key.study, "consent": key.consent, "rater": rater, "answers": answers}
    return json.dumps(fields).encode()


def test_the_page_is_served_and_nothing_else(study: tuple[Path, StudyKey]) -> None:
    client = make_app(study[0]).test_client()
    index = client.get("/")
    assert b"Which one is fake?" in index.data
    assert "default-src 'none'" in index.headers["Content-Security-Policy"]
    name = next(iter(study[1].triplets))
    for path, kind in (("study.js", "javascript"), ("study.css", "css"), (f"pictures/{name}.png", "image/png")):
        reply = client.get(f"/{path}")
        assert reply.status_code == 200
        assert kind in reply.content_type
    outside = (
        "key.json",
        "../key.json",
        "%2e%2e/key.json",
        "pictures/../../key.json",
        "answers.sqlite",
        "..%2fanswers.sqlite",
    )
    for path in outside:
        assert client.get(f"/{path}").status_code == 404, path


def test_answers_are_judged(study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    client = make_app(folder, raters=1).test_client()
    one, two = list(key.triplets)[:2]
    rater = "a" * 32

    def post(content: bytes, headers: dict[str, str] = JSON) -> tuple[int, Any]:
        reply = client.post("/answers", data=content, headers=headers)
        return reply.status_code, reply.json

    assert post(sheet(key, rater, {one: 1})) == (201, {"new": 1})
    assert post(sheet(key, rater, {one: 1})) == (200, {"new": 0})
    status, body = post(sheet(key, rater, {one: 2}))
    assert (status, body["error"]) == (409, f"rater {rater} already answered triplet {one} differently")
    assert post(b"{")[0] == 400
    assert post(sheet(key, rater, {two: 4})) == (400, {"error": "choice must be an integer from 1 to 3"})
    assert post(sheet(key, "b" * 32, {two: 1})) == (403, {"error": "this study already has its 1 raters"})
    assert post(sheet(key, rater, {two: 1}), {"Content-Type": "text/plain"})[0] == 415
    assert client.post("/answers", data=b" " * 100_000, headers=JSON).status_code == 413
    assert client.get("/answers").status_code in (404, 405)
    assert post(sheet(key, rater, {two: 1})) == (201, {"new": 1}), "after all of that"


def test_write_errors_are_not_acknowledged(study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    client = make_app(folder).test_client()
    with closing(sqlite3.connect(folder / "answers.sqlite")) as connection:
        connection.execute("DROP TABLE answers")
    reply = client.post("/answers", data=sheet(key, "a" * 32, {next(iter(key.triplets)): 1}), headers=JSON)
    assert reply.status_code == 503
    assert "cannot store the answer" in reply.json["error"]


@contextmanager
def running(study: Path, *, port: str = "0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command `serve` in a separate process, and its address."""
    command = [sys.executable, "-m", "th_jax.cli.main", "study", "serve", str(study), "--port", port]
    # A shell's background job, which the tests may be, ignores Ctrl-C, and so would its children.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heed, **pipes) as server:
        try:
            line = server.stdout.readline()
            assert line.startswith("serving http://127.0.0.1:"), line + server.stderr.read()
            yield server, line.split()[1]
        finally:
            server.kill()


def post(address: str, content: bytes) -> int:
    request = urllib.request.Request(f"{address}answers", data=content, headers=JSON)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def hang_up(address: str, content: bytes, *, read: int) -> None:
    """Send the request, read a few bytes of the response, and reset the connection with the rest unread."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(content)
        while read > 0:
            read -= len(client.recv(read))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_disconnected_raters_leave_no_log(study: tuple[Path, StudyKey]) -> None:
    """During a request, during its body, and during the transfer of a 4 MB image, more than sockets buffer."""
    folder, key = study
    image = folder / "page" / "pictures" / f"{next(iter(key.triplets))}.png"
    image.write_bytes(bytes(4 * 2**20))
    head = b"POST /answers HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n"
    asked = f"GET /pictures/{image.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with running(folder) as (server, address):
        for _ in range(3):
            for content, read in ((b"GET / HT", 0), (head + b"{", 0), (asked, 0), (asked, 100), (asked * 3, 10)):
                hang_up(address, content, read=read)
        assert post(address, sheet(key, "a" * 32, {next(iter(key.triplets)): 1})) == 201
        server.send_signal(signal.SIGINT)
        output, errors = server.communicate(timeout=30)
    assert output == ""
    assert errors.splitlines() == [f"answers: {folder / 'answers.sqlite'}"]


def test_killed_servers_keep_acknowledged_answers(study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    names = list(key.triplets)
    acknowledged: list[tuple[str, str]] = []
    enough = threading.Event()

    def rate(address: str, letter: str) -> None:
        for number in range(10_000):
            rater, name = f"{number:031x}{letter}", names[number % len(names)]
            try:
                if post(address, sheet(key, rater, {name: 2})) != 201:
                    return
            except OSError:  # the server died under this answer, which was not acknowledged
                return
            acknowledged.append((rater, name))
            if len(acknowledged) >= 40:
                enough.set()

    with running(folder) as (server, address):
        raters = [threading.Thread(target=rate, args=(address, letter)) for letter in "abc"]
        for rater in raters:
            rater.start()
        assert enough.wait(60)
        os.kill(server.pid, signal.SIGKILL)  # while three raters are in the middle of it
        for rater in raters:
            rater.join()
        assert server.wait() == -signal.SIGKILL
    with closing(sqlite3.connect(folder / "answers.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = set(connection.execute("SELECT rater, triplet FROM answers"))
    assert len(acknowledged) >= 40
    assert set(acknowledged) <= kept
    assert len(kept) <= len(acknowledged) + 3, "at most the answer that each rater was sending"

    with running(folder) as (server, address):  # it goes on where it was, and knows what comes again
        rater, name = acknowledged[-1]
        assert post(address, sheet(key, rater, {name: 2})) == 200
        assert post(address, sheet(key, rater, {name: 3})) == 409
        assert post(address, b"{}") == 400
        assert post(address, b" " * 500_000) == 413
        assert post(address, sheet(key, "d" * 32, {name: 3})) == 201
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert server.stderr.read() == f"answers: {folder / 'answers.sqlite'}\n"


def test_rejected_commands_are_one_sentence(
    study: tuple[Path, StudyKey], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(study[0]) as (_, address):
        port = address.rstrip("/").rsplit(":", 1)[1]
        assert main(["serve", str(study[0]), "--port", port]) == 1
    assert main(["serve", str(study[0]), "--port", "70000"]) == 1
    assert main(["serve", str(study[0]), "--host", "a..b"]) == 1
    assert main(["serve", str(study[0]), "--raters", "0"]) == 1
    assert main(["serve", str(tmp_path)]) == 1
    (study[0] / "page/index.html").unlink()
    assert main(["serve", str(study[0])]) == 1
    lines = capsys.readouterr().err.splitlines()
    wanted = (
        "cannot serve",
        "a port must be 0 to 65535",
        "cannot serve a..b:8000: unknown host name 'a..b'",
        "1 or more raters",
        "key.json is missing",
        "page/index.html is missing",
    )
    assert len(lines) == len(wanted)
    assert all(
        line.startswith("th-jax study: ") and words in line for line, words in zip(lines, wanted, strict=True)
    ), lines
