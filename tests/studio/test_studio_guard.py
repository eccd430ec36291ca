"""Who may reach the studio: hosts and passwords, requests of other sites, sizes, and the headers of answers."""

import asyncio
from typing import Any

import pytest
from commands import command

from th_jax.studio.guard import MAX_OTHER_BYTES, MAX_UPLOAD_BYTES, Guard, check_access, is_loopback, rejection

HERE = {"host": "127.0.0.1:7860"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_this_machine_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    check_access(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", ""])
def test_other_machines_need_one(host: str) -> None:
    with pytest.raises(ValueError, match="give --password or --users too"):
        check_access(host, None)
    check_access(host, None, users=True)
    with pytest.raises(ValueError, match="not both"):
        check_access(host, "long enough", users=True)
    check_access(host, "long enough")
    with pytest.raises(ValueError, match="at least 8 characters"):
        check_access(host, "short")


def test_the_command_says_so_before_anything_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TH_JAX_STUDIO_PASSWORD", "")
    assert command("studio")(["--host", "0.0.0.0"]) == 2
    assert "give --password or --users too" in capsys.readouterr().err
    assert command("studio")(["--port", "0"]) == 2
    assert "must be 1 to 65535" in capsys.readouterr().err


def test_without_gradio_the_command_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("th_jax.cli.studio.NEEDED", ("no_such_module",))
    assert command("studio")([]) == 1
    assert "pip install 'th_jax[studio]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", HERE, None),
        ("GET", {"host": "[::1]:7860"}, None),
        ("GET", {"host": "localhost"}, None),
        ("GET", {"host": "evil.example"}, 403),  # its name leads to this machine
        ("GET", {"host": "localhost.evil.example"}, 403),
        ("GET", {}, 403),
        ("POST", {**HERE, "origin": "http://127.0.0.1:7860"}, None),
        ("POST", {**HERE, "origin": "http://evil.example"}, 403),
        ("POST", {**HERE, "origin": "http://127.0.0.1:1"}, 403),
        ("POST", {**HERE, "origin": "null"}, 403),
        ("GET", {"host": "["}, 400),
        ("POST", {**HERE, "origin": "http://["}, 400),
        ("POST", {**HERE, **JSON, "content-length": str(MAX_OTHER_BYTES)}, None),
        ("POST", {**HERE, **JSON, "content-length": str(MAX_OTHER_BYTES + 1)}, 413),
        ("POST", {**HERE, "content-length": str(MAX_OTHER_BYTES + 1)}, 413),
        ("POST", {**HERE, "content-length": "-1"}, 413),
        ("POST", {**HERE, "content-length": "many"}, 413),
    ],
)
def test_requests_of_other_sites_and_sizes_are_not_answered(
    method: str, headers: dict[str, str], status: int | None
) -> None:
    found = rejection(method, headers, local=True)
    assert (None if found is None else found[0]) == status


def test_with_a_password_the_studio_has_other_names_but_the_same_origin() -> None:
    assert rejection("GET", {"host": "studio.example"}, local=False) is None
    other = {"host": "studio.example", "origin": "https://evil.example"}
    found = rejection("POST", other, local=False)
    assert found is not None
    assert found[0] == 403


async def _page(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/html"), (b"referrer-policy", b"unsafe-url")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"page"})


def answer(scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(Guard(_page, local=True)(scope, receive, send))
    return sent


def test_answers_carry_a_policy_and_forbidden_requests_never_reach_the_page() -> None:
    start, body = answer({"type": "http", "method": "GET", "headers": [(b"Host", b"localhost:1")]})
    headers = dict(start["headers"])
    assert (start["status"], body["body"]) == (200, b"page")
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert [name for name, _ in start["headers"]].count(b"referrer-policy") == 1
    start, body = answer({"type": "http", "method": "GET", "headers": [(b"host", b"evil.example")]})
    assert start["status"] == 403
    assert b"page" not in body["body"]
    (closed,) = answer({"type": "websocket", "headers": [(b"host", b"evil.example")]})
    assert closed["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("path", "kind", "most"),
    [
        ("/avatars", FORM, MAX_UPLOAD_BYTES),
        ("/gradio_api/upload", FORM, MAX_UPLOAD_BYTES),
        ("/avatars", JSON, MAX_OTHER_BYTES),
        ("/gradio_api/queue/join", FORM, MAX_OTHER_BYTES),  # it is read into memory before its type is looked at
    ],
)
def test_only_files_may_be_large(path: str, kind: dict[str, str], most: int) -> None:
    for length, status in ((most, None), (most + 1, 413)):
        found = rejection("POST", {**HERE, **kind, "content-length": str(length)}, local=True, path=path)
        assert (found and found[0]) == status
