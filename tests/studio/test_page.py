"""The page's handlers, called directly; needs the extra "studio"."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason='needs the extra "studio"')

from th_jax.driving.edit import CONTROLS
from th_jax.landmarks.transfer import Gains
from th_jax.studio.drives import DriveSettings
from th_jax.studio.folder import Card
from th_jax.studio.jobs import Kind
from th_jax.studio.page import Page, card_html, settings_of, with_messages
from th_jax.studio.session import Studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("studio"))
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def page(studio: Studio) -> Page:
    return Page(studio, studio.folder.uploads)


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
        with_messages(page.gr, fails)("")
    assert found.value.message == "&lt;b&gt;wrong&lt;/b&gt;"
    running = with_messages(page.gr, fails_later)("")
    assert next(running) == 1
    with pytest.raises(page.gr.Error, match="&lt;i&gt;"):
        next(running)
    with pytest.raises(page.gr.Error, match="internal error"):
        with_messages(page.gr, breaks)("")


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
        page.create("0" * 16, "", "../x", "Ada", None, [], "", "")
    with pytest.raises(ValueError, match="is not a valid avatar name"):
        page.edit(None, *[0.0] * len(CONTROLS))
    with pytest.raises(ValueError, match="there is no job yet"):
        page.act(99, kind=Kind.VIDEO, action="cancel")
    assert page.verify(None) == ""
