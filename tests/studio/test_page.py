"""The page's handlers, called directly and through its server; needs the extra "studio"."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason='needs the extra "studio"')

from starlette.testclient import TestClient

from th_jax.driving.edit import CONTROLS
from th_jax.landmarks.transfer import Gains
from th_jax.studio.drives import DriveSettings
from th_jax.studio.folder import Card
from th_jax.studio.guard import POLICY
from th_jax.studio.jobs import Job
from th_jax.studio.making import ConsentForm
from th_jax.studio.page import Page, application, card_html, settings_of, told
from th_jax.studio.session import Studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("studio"))
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def page(studio: Studio) -> Page:
    return Page(studio)


def test_saved_settings_move_the_controls_back(page: Page) -> None:
    settings = DriveSettings(
        layout="driver,avatar", retargeting="model", gains=Gains(mouth=1.5), smoothing=4.0, seconds=2.0, at=1.0,
        gaze="on", sound=False, suffix=".png",
    )  # fmt: skip
    for one in (settings, DriveSettings()):
        assert settings_of(*page.reuse(one.to_json())) == one


def test_errors_are_sentences_without_markup(page: Page) -> None:
    def fails(_: str) -> None:
        raise ValueError("<b>wrong</b>")

    def fails_later(_: str) -> Iterator[int]:
        yield 1
        raise KeyError("<i>")

    def breaks(_: str) -> None:
        raise ZeroDivisionError("secret")

    with pytest.raises(page.gr.Error) as found:
        told(page.gr, fails)("")
    assert found.value.message == "&lt;b&gt;wrong&lt;/b&gt;"
    running = told(page.gr, fails_later)("")
    assert next(running) == 1
    with pytest.raises(page.gr.Error, match="&lt;i&gt;"):
        next(running)
    with pytest.raises(page.gr.Error, match="internal error"):
        told(page.gr, breaks)("")


def test_cards_are_escaped() -> None:
    card = Card("ada", Path("ada"), None, 3, 40, (1.0, 0.6), "f" * 64, "<img src=x>", "<script>")
    text = card_html(card)
    assert "<img" not in text
    assert "<script" not in text
    assert "3 shots, 40 fine-tuning steps, best held-out score 0.6" in text


def test_handlers_reject_what_the_page_cannot_send(page: Page) -> None:
    with pytest.raises(ValueError, match="neither a photo"):
        list(page.examine(["/etc/passwd"], ""))
    with pytest.raises(ValueError, match="is not a valid avatar name"):
        page.create("0" * 16, "../x", "Ada", None, [], "", "")
    with pytest.raises(ValueError, match="is not a valid avatar name"):
        page.edit(None, *[0.0] * len(CONTROLS))
    with pytest.raises(ValueError, match="there is no job yet"):
        page.act(99, kind="video", action="cancel")
    assert page.verify(None) == ""


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[Any]:
    with TestClient(application(studio, host="127.0.0.1", password=None), base_url="http://127.0.0.1") as client:
        yield client


def test_the_server_answers_this_site_alone(client: Any) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["content-security-policy"]) == (200, POLICY)
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    post = "/gradio_api/upload"
    assert client.post(post, headers={"origin": "http://evil.example"}, files={"files": b"x"}).status_code == 403


def test_uploads_stay_in_the_folder_and_other_files_are_not_served(client: Any, studio: Studio) -> None:
    (stored,) = client.post("/gradio_api/upload", files={"files": ("../../x.jpg", b"x")}).json()
    assert Path(stored).resolve().is_relative_to(studio.folder.uploads)
    consent = studio.folder.consents / "ada.consent.json"
    consent.write_text("{}")
    for path in (consent, Path("/etc/passwd"), studio.folder.results / ".." / "consents" / "ada.consent.json"):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path


def done(job: Job) -> tuple[Path | None, str]:
    """Ends at once."""
    return None, "done"


def test_the_api_makes_jobs_and_reports_them(client: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/health/ready").json()["ready"] is True
    asked: list[Any] = []

    def create(token: str, name: str, form: Any) -> Any:
        stored = sorted(path.name for path in (studio.folder.drafts / token).iterdir())
        asked.append((name, form, stored))
        studio.discard(token)
        return studio.jobs.submit("avatar ada", done)

    monkeypatch.setattr(studio, "create", create)
    form = {"name": "ada", "subject": "Ada", "basis": "self", "uses": "private,art", "expires": "2099-01-31"}
    answer = client.post("/avatars", data=form, files=[("shots", ("../../a.png", b"x")), ("shots", ("b.png", b"y"))])
    assert answer.status_code == 202
    filled = ConsentForm("Ada", "self", ("private", "art"), "", "2099-01-31")
    assert asked == [("ada", filled, ["001_001_a.png", "002_002_b.png"])]
    number = answer.json()["job"]
    assert studio.jobs.get(number).wait(timeout=20)
    assert client.get(f"/jobs/{number}").json()["stage"] == "done"
    assert client.get(f"/jobs/{number}/result").status_code == 409
    assert client.get("/jobs/999").status_code == 404
    assert list(studio.folder.uploads.glob("tmp*")) == []
    assert "/avatars" in client.get("/openapi.json").json()["paths"]


def test_the_api_answers_errors_in_sentences(client: Any, studio: Studio) -> None:
    before = len(studio.jobs.progress())
    form = {"name": "../x", "subject": "Ada", "basis": "self"}
    answer = client.post("/avatars", data=form, files={"shots": ("a.png", b"x")})
    assert (answer.status_code, "not a valid avatar name" in answer.json()["error"]) == (422, True)
    answer = client.post("/avatars", data=form, files={"shots": ("a.exe", b"x")})
    assert (answer.status_code, "neither a photo" in answer.json()["error"]) == (422, True)
    answer = client.post("/videos", data={"avatar": "nobody", "example": "x"})
    assert answer.json() == {"error": "there is no avatar 'nobody': choose one of the gallery"}
    answer = client.post("/videos", data={"avatar": "nobody", "settings": "[]"})
    assert "not settings of a drive" in answer.json()["error"]
    assert list(studio.folder.drafts.iterdir()) == []
    assert len(studio.jobs.progress()) == before
    assert client.post("/avatars", data=form, headers={"origin": "http://evil.example"}).status_code == 403


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio")
    try:
        with TestClient(application(studio, host="0.0.0.0", password="long enough")) as client:
            assert client.get("/config").status_code == 401
            assert client.get("/jobs").status_code == 401
            assert client.get("/jobs", auth=("studio", "wrong one")).status_code == 401
            assert client.get("/jobs", auth=("studio", "long enough")).json() == []
            assert client.post("/login", data={"username": "studio", "password": "wrong one"}).status_code == 400
            assert client.post("/login", data={"username": "studio", "password": "long enough"}).status_code == 200
            assert client.get("/config").status_code == 200
    finally:
        studio.close()
