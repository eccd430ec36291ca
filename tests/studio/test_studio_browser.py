"""The studio's page in a real headless Chromium: from dropped pictures of a bundled person to a verified video.

`TH_JAX_CHROMIUM` names the browser; with `TH_JAX_SCREENSHOTS` its screenshots are kept in that folder.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("playwright", reason="see `make studio-test`")
pytest.importorskip("gradio", reason='needs the extra "studio"')

from playwright import sync_api

from th_jax.avatars.examples import DRIVER, write_shots
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.provenance.verify import Verdict, verify_file

pytestmark = pytest.mark.studio

LONG = 900_000
"""Milliseconds that a job may take on a busy machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "th_jax.cli.main", "studio", "--port", str(port), "--folder", str(folder)]
    with subprocess.Popen(command) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                with urllib.request.urlopen(address, timeout=5):
                    break
            except OSError:
                assert server.poll() is None, "the studio ended"
                time.sleep(1)
        yield address
        server.terminate()


@pytest.fixture(scope="module")
def webcam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of a bundled person's rendered head, in the raw format that Chromium takes for a webcam."""
    film = tmp_path_factory.mktemp("webcam") / "head.y4m"
    frames = VideoRecords(bundled_heads(), "heldout").read(DRIVER).frames
    with film.open("wb") as file:
        file.write(b"YUV4MPEG2 W320 H320 F25:1 Ip A1:1 C420jpeg\n")
        for jpeg in frames:
            picture = cv2.resize(decode_frame(jpeg, size=FRAME_SIZE), (320, 320), interpolation=cv2.INTER_CUBIC)
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes())
    return film


@pytest.fixture(scope="module")
def page(address: str, webcam: Path) -> Iterator[Any]:
    path = os.environ.get("TH_JAX_CHROMIUM")
    if not path:
        pytest.fail("TH_JAX_CHROMIUM must name a Chromium: see `make studio-test`")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    fake.append(f"--use-file-for-fake-video-capture={webcam}")
    with sync_api.sync_playwright() as playwright:
        # Containers run as root, where Chromium's sandbox does not; it sees this project's page alone.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *fake])
        page = chromium.new_page(
            viewport={"width": 1280, "height": 1000}, accept_downloads=True, permissions=["camera"]
        )  # fmt: skip
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        others = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        chromium.close()
    assert not others, "the page must ask no other server"


def shot(page: Any, name: str) -> None:
    if place := os.environ.get("TH_JAX_SCREENSHOTS"):
        Path(place).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(place) / f"{name}.png"), full_page=True)


def field(page: Any, name: str) -> Any:
    return page.locator(f"#{name} textarea, #{name} input[type=text], #{name} input:not([type])").first


def becomes(field: Any, pattern: str, *, timeout: int = LONG) -> str:
    sync_api.expect(field).to_have_value(re.compile(pattern), timeout=timeout)
    return str(field.input_value())


def test_from_dropped_pictures_to_a_verified_video(page: Any, folder: Path, tmp_path: Path) -> None:
    photos = sorted(write_shots("head", tmp_path).iterdir())[:3]
    bad = tmp_path / "no face.png"
    cv2.imwrite(str(bad), np.full((300, 300, 3), 90, np.uint8))
    page.locator("#shots input[type=file]").first.set_input_files([str(photo) for photo in [*photos, bad]])
    found = becomes(field(page, "found"), "^3 of 4 images can be used")
    assert "no_face.png: left out: no face was found in it" in found
    sync_api.expect(page.locator("#tiles img")).to_have_count(4)
    shot(page, "new-avatar-faces")

    field(page, "name").fill("dropped")
    page.locator("#create").click()  # without the consent form
    sync_api.expect(page.get_by_text("the consent form needs the name").first).to_be_visible()
    assert not any((folder / "avatars").glob("*.safetensors"))

    field(page, "subject").fill("<b>a rendered head</b>")
    page.get_by_label("the person does not exist").check()
    page.locator("#create").click()
    becomes(field(page, "making"), "fine-tuning")
    sync_api.expect(page.locator("#preview img")).to_be_visible(timeout=LONG)
    shot(page, "new-avatar-fine-tuning")
    page.get_by_role("button", name="Stop and keep").first.click()
    words = becomes(field(page, "making"), "^finished")
    assert re.search(r"dropped: 3 shots, 1 left out, \d+ fine-tuning steps", words), words

    page.get_by_role("tab", name="Gallery").click()
    cards = page.locator("#cards")
    sync_api.expect(cards).to_contain_text("<b>a rendered head</b>")  # as text
    sync_api.expect(cards).to_contain_text("synthetic")
    shot(page, "gallery")

    page.get_by_role("tab", name="Drive").click()
    page.locator("#drive-avatar input").click()
    page.get_by_role("option", name="dropped").click()
    page.get_by_label("motion file: look, nod, smile").check()
    page.locator("#drive").click()
    words = becomes(field(page, "driving"), "^finished")
    assert "100 frames at 25 frames/s" in words, words
    sync_api.expect(page.locator("#result video")).to_be_visible()
    sync_api.expect(page.locator("#provenance")).to_contain_text("watermark")
    shot(page, "drive")
    with page.expect_download() as downloading:
        page.locator("#download a[href*='.mp4']").first.click()
    film = tmp_path / "downloaded.mp4"
    downloading.value.save_as(film)
    assert verify_file(film).verdict is Verdict.MARKED

    page.get_by_role("tab", name="Edit").click()
    page.locator("#edit-avatar input").click()
    page.get_by_role("option", name="dropped").last.click()
    sync_api.expect(page.locator("#still img")).to_be_visible(timeout=LONG)
    page.locator("#edit-yaw input[type=number]").fill("20")
    page.locator("#edit-yaw input[type=number]").press("Enter")
    sync_api.expect(page.get_by_label("The same as a command").last).to_have_value(re.compile("yaw=20"), timeout=LONG)
    shot(page, "edit")

    page.get_by_role("tab", name="Verify").click()
    page.locator("#suspect input[type=file]").first.set_input_files(str(film))
    sync_api.expect(page.locator("#verdict")).to_contain_text("generated by a machine", timeout=LONG)
    shot(page, "verify")

    page.reload()  # in the middle: the server keeps the jobs
    becomes(field(page, "making"), "^finished")
    sync_api.expect(page.locator("#jobs")).to_contain_text("video of dropped")


def test_a_webcam_drives_an_avatar(page: Any) -> None:
    page.get_by_role("tab", name="Live").click()
    page.locator("#live-avatar input").click()
    page.get_by_role("option", name="dropped").last.click()
    page.locator("#camera [title='grant webcam access'] button").click()
    page.locator("#camera").get_by_role("button", name=re.compile("capture photo|start recording")).first.click()
    words = becomes(field(page, "live-state"), "^generated: ")
    sync_api.expect(page.locator("#live img")).to_be_visible()
    shot(page, "live")
    print(words)


def test_a_phone_shows_the_page_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    wide = page.evaluate("document.documentElement.scrollWidth")
    shot(page, "phone")
    assert wide <= 390
