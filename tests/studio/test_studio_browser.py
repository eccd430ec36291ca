"""The studio's page in a real headless Chromium: from dropped pictures of a bundled person to a verified video.

`TH_JAX_CHROMIUM` names the browser; with `TH_JAX_SCREENSHOTS` its screenshots are kept in that folder.
"""

import json
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

TABS = ("New avatar", "Gallery", "Drive", "Live", "Edit", "Verify")

LONG = 900_000
"""Milliseconds that a job may take on a busy machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


class Server:
    """A studio in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable,
            "-m",
            "th_jax.cli.main",
            "studio",
            "--port",
            str(port),
            "--folder",
            str(folder),
        ]

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        for _ in range(900):
            try:
                with urllib.request.urlopen(self.address, timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, "the studio ended"
                time.sleep(1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def jobs(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.address}/jobs", timeout=60) as answer:
            return list(json.load(answer))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    yield server
    server.process.terminate()
    assert server.process.wait(timeout=LONG / 1000) == 0, "an end on request is no failure"


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
def page(server: Server, webcam: Path) -> Iterator[Any]:
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
        sync_api.expect.set_options(timeout=60_000)  # a busy machine
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address)
        yield page
        others = [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
        chromium.close()
    assert not others, "the page must ask no other server"


def shot(page: Any, name: str) -> None:
    if place := os.environ.get("TH_JAX_SCREENSHOTS"):
        Path(place).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(place) / f"{name}.png"), full_page=True)


def field(page: Any, name: str) -> Any:
    return page.locator(f"#{name} textarea, #{name} input[type=text], #{name} input:not([type])").first


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab").first.wait_for()  # after a reload, no tab is there yet
    if not page.get_by_role("tab", name=name).first.is_visible():  # on a phone, behind the button "..."
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button", has_text=name).click()
        return
    page.get_by_role("tab", name=name).first.click()


def choose(page: Any, dropdown: str, avatar: str) -> None:
    page.locator(f"#{dropdown} input").click()
    page.get_by_role("option", name=avatar).last.click()


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
    assert "--landmarks" not in found
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

    tab(page, "Gallery")
    cards = page.locator("#cards")
    sync_api.expect(cards).to_contain_text("<b>a rendered head</b>")  # as text
    sync_api.expect(cards).to_contain_text("synthetic")
    shot(page, "gallery")

    tab(page, "Drive")
    choose(page, "drive-avatar", "dropped")
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

    tab(page, "Edit")
    choose(page, "edit-avatar", "dropped")
    sync_api.expect(page.locator("#still img")).to_be_visible(timeout=LONG)
    page.locator("#edit-yaw input[type=number]").fill("20")
    page.locator("#edit-yaw input[type=number]").press("Enter")
    becomes(field(page, "edit-command"), "yaw=20")
    shot(page, "edit")

    tab(page, "Verify")
    page.locator("#suspect input[type=file]").first.set_input_files(str(film))
    sync_api.expect(page.locator("#verdict")).to_contain_text("generated by a machine", timeout=LONG)
    shot(page, "verify")

    page.reload()  # in the middle: the server keeps the jobs
    becomes(field(page, "making"), "^finished")
    sync_api.expect(page.locator("#jobs")).to_contain_text("video of dropped")


def test_sliders_make_a_clip(page: Any, folder: Path) -> None:
    tab(page, "Edit")
    choose(page, "edit-avatar", "dropped")
    page.locator("#add-key").click()
    sync_api.expect(field(page, "keys")).to_have_value(re.compile("^1: "))
    page.locator("#make-clip").click()
    sync_api.expect(page.get_by_text("a clip has 2 to 50 positions").first).to_be_visible()
    page.locator("#edit-yaw input[type=number]").fill("-20")
    page.locator("#edit-yaw input[type=number]").press("Enter")
    page.locator("#add-key").click()
    sync_api.expect(field(page, "keys")).to_have_value(re.compile("2: yaw=-20"))
    page.locator("#make-clip").click()
    words = becomes(field(page, "clipping"), "^finished")
    assert "26 frames at 25 frames/s" in words, words
    sync_api.expect(page.locator("#clip video")).to_be_visible()
    shot(page, "clip")


def test_what_cannot_be_used_is_said(page: Any, folder: Path, tmp_path: Path) -> None:
    page.reload()
    wrong, broken, blank = tmp_path / "notes.txt", tmp_path / "broken.png", tmp_path / "blank.png"
    wrong.write_text("no picture")
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 500)
    cv2.imwrite(str(blank), np.full((300, 300, 3), 90, np.uint8))
    shots = page.locator("#shots input[type=file]").first
    shots.set_input_files(str(wrong))  # its type is checked by the page and by the server
    sync_api.expect(page.get_by_text(re.compile("invalid file type|neither a photo", re.I)).first).to_be_visible()
    page.reload()
    shots.set_input_files([str(broken), str(blank)])
    found = becomes(field(page, "found"), "^0 of 2 images can be used")
    assert "broken.png: left out" in found
    field(page, "name").fill("nobody")
    field(page, "subject").fill("nobody")
    page.get_by_label("the person does not exist").check()
    page.locator("#create").click()
    words = becomes(field(page, "making"), "^failed: ")
    assert str(folder) not in words
    assert not (folder / "avatars" / "nobody.safetensors").exists()
    assert not (folder / "shots" / "nobody").exists()


def test_points_are_placed_by_clicking_and_typing(page: Any, tmp_path: Path) -> None:
    page.reload()
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((300, 300, 3), 90, np.uint8))
    page.locator("#shots input[type=file]").first.set_input_files(str(blank))
    becomes(field(page, "found"), "^0 of 1 images can be used")
    page.get_by_role("button", name=re.compile("Place points")).click()
    page.locator("#show-photo").click()
    sync_api.expect(page.locator("#points-photo img")).to_be_visible(timeout=LONG)
    picture = page.locator("#points-photo img")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.3, "y": box["height"] * 0.4})
    text = becomes(field(page, "points"), r"^36: \d+, \d+$")
    x, y = (float(number) for number in text.removeprefix("36: ").split(","))
    assert abs(x - 90) <= 3, "in pixels of the photo"
    assert abs(y - 120) <= 3
    sync_api.expect(page.locator("#key input")).to_have_value(re.compile("on the right"), timeout=LONG)
    field(page, "points").fill("36: 90, 120\n45: 210, 120\n30: 150, 170\n48: 115, 210\n54: 185, 210\n")
    sync_api.expect(page.locator("#key input")).to_have_value("chin", timeout=LONG)
    shot(page, "points")
    field(page, "points").fill("99: 1, 2")
    sync_api.expect(page.get_by_text("a point is NUMBER: X, Y").first).to_be_visible()


def test_a_killed_studio_goes_on_where_it_was(page: Any, server: Server, folder: Path) -> None:
    page.reload()
    tab(page, "Drive")
    choose(page, "drive-avatar", "dropped")
    page.get_by_label("motion file: look, nod, smile").check()
    before = server.jobs()
    for number in (1, 2):
        page.locator("#drive").click()
        sync_api.expect(page.locator("#jobs tbody tr")).to_have_count(len(before) + number, timeout=LONG)
    server.kill()
    server.start()
    page.goto(server.address)
    tab(page, "Drive")
    becomes(field(page, "driving"), "^finished")
    after = server.jobs()
    assert [job["job"] for job in after] == list(range(len(after), 0, -1)), "no job is lost or doubled"
    assert len(after) == len(before) + 2
    assert {job["state"] for job in after[:2]} == {"finished"}
    made = [job["result"] for job in after if job["title"] == "video of dropped"]
    assert len(set(made)) == len(made)
    assert all((folder / "results" / name).exists() for name in made)


def test_pictures_are_taken_with_the_webcam(page: Any) -> None:
    page.reload()
    page.get_by_role("button", name="Take pictures with the webcam").click()
    access = page.locator("#photo [title='grant webcam access'] button")
    access.click()
    capture = page.locator("#photo").get_by_role("button", name=re.compile("capture photo")).first
    capture.click()
    becomes(field(page, "found"), "^1 of 1 images can be used")
    sync_api.expect(page.locator("#pose")).to_contain_text("picture 2 of 10: turn a little to the left")
    shot(page, "webcam")
    page.locator("#photo").get_by_role("button", name=re.compile("remove|clear", re.I)).first.click()
    access.or_(capture).first.wait_for()
    if access.is_visible():
        access.click()
    capture.click()
    becomes(field(page, "found"), "^2 of 2 images can be used")


def test_a_webcam_drives_an_avatar(page: Any) -> None:
    tab(page, "Live")
    choose(page, "live-avatar", "dropped")
    page.locator("#camera [title='grant webcam access'] button").click()
    page.locator("#camera").get_by_role("button", name=re.compile("capture photo|start recording")).first.click()
    words = becomes(field(page, "live-state"), "^generated: ")
    sync_api.expect(page.locator("#live img")).to_be_visible()
    shot(page, "live")
    print(words)


def test_a_phone_shows_the_page_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for name in TABS:
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        shot(page, f"phone-{name.lower().replace(' ', '-')}")
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_the_page_is_dark_where_the_browser_is(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    page.reload()
    for name in TABS:
        tab(page, name)
        red, green, blue = page.evaluate(
            "getComputedStyle(document.querySelector('.gradio-container')).backgroundColor.match(/[0-9.]+/g).map(Number)"
        )[:3]
        assert max(red, green, blue) < 60, name
        shot(page, f"dark-{name.lower().replace(' ', '-')}")
    page.emulate_media(color_scheme="light")


IDS = """() => {
    const ids = [];
    for (let one = document.activeElement; one; one = one.parentElement) if (one.id) ids.push(one.id);
    return ids;
}"""
"""Names of the focused element and of those around it."""


def test_the_keyboard_alone_reaches_everything(page: Any) -> None:
    page.reload()
    tab(page, "Verify")
    page.get_by_role("tab", name="New avatar").focus()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#create")).to_be_visible()
    reached: set[str] = set()
    for _ in range(100):
        page.keyboard.press("Tab")
        reached |= set(page.evaluate(IDS))
        if "create" in reached:
            break
    assert {"name", "subject", "basis", "create"} <= reached, reached
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_text("there are no images").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Any, scheme: str) -> None:
    """The rules of WCAG 2 A and AA that a program can check, in every tab."""
    path = os.environ.get("TH_JAX_AXE")
    if not path:
        pytest.fail("TH_JAX_AXE must name axe.min.js of the npm package axe-core: see `make studio-test`")
    page.emulate_media(color_scheme=scheme)
    page.reload()
    found = set()
    for name in TABS:
        tab(page, name)
        page.evaluate(Path(path).read_text())
        answer = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
        for rule in answer["violations"]:
            if rule["impact"] in ("serious", "critical"):
                found |= {f"{name}: {rule['id']}: {node['html'][:160]}" for node in rule["nodes"]}
        assert answer["passes"], "axe looked at nothing"
    page.emulate_media(color_scheme="light")
    assert not found, "\n".join(sorted(found))
