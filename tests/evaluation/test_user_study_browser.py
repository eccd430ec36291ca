"""Whole user studies in a real headless Chromium: by keyboard and by touch, served and from the disk, with mishaps.

`TH_JAX_CHROMIUM` names the browser; with `TH_JAX_SCREENSHOTS` its screenshots are kept in that folder.
"""

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_user_study_frames import write_frames

pytest.importorskip("playwright", reason="see `make browser-test`")
pytest.importorskip("flask", reason='needs the extra "study"')

from commands import study as main
from playwright import sync_api
from test_user_study_serve import running

from th_jax.evaluation.user_study.answer_key import StudyKey
from th_jax.evaluation.user_study.build import build_study, triplet_strip
from th_jax.evaluation.user_study.frames import CHECK, read_study_frames

pytestmark = pytest.mark.browser

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
SMALL_PHONE = {"viewport": {"width": 320, "height": 568}, "has_touch": True, "is_mobile": True}
LANDSCAPE = {"viewport": {"width": 844, "height": 390}, "has_touch": True, "is_mobile": True}
SETTLED = 330
"""Milliseconds after which the page takes a key: 300, and a little."""

CANVASES = """[...document.querySelectorAll(".picture canvas")].map((canvas) => canvas.toDataURL("image/png"))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("TH_JAX_CHROMIUM")
    if not path:
        pytest.fail("TH_JAX_CHROMIUM must name a Chromium: see `make browser-test`")
    with sync_api.sync_playwright() as playwright:
        # Containers run as root, where Chromium's sandbox does not; it sees this project's page alone.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, StudyKey]:
    """30 triplets and 3 attention checks; with `TH_JAX_STUDY_FRAMES`, of the frames in that folder."""
    frames = Path(os.environ.get("TH_JAX_STUDY_FRAMES", tmp_path / "frames"))
    if frames == tmp_path / "frames":
        write_frames(frames, people=5, size=64)
    key = build_study(frames, tmp_path / "study", triplets=30, checks=3)
    (tmp_path / "study/frames.txt").write_text(str(frames))
    return tmp_path / "study", key


def shot(page: Any, tmp_path: Path, name: str) -> None:
    page.screenshot(path=Path(os.environ.get("TH_JAX_SCREENSHOTS", tmp_path)) / f"{name}.png")


def watched(context: Any) -> tuple[Any, list[str]]:
    """A page, and the list of its errors."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    return page, wrong


def until(page: Any, condition: str) -> None:
    """Wait for a JavaScript expression. (Playwright's own wait would need eval, which the served page forbids.)"""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never true: {condition}"
        page.wait_for_timeout(20)


def begin(page: Any) -> None:
    page.locator("#begin:enabled").wait_for()
    page.keyboard.press("Enter")  # the button has the focus
    page.locator("#rating").wait_for()


def rate(page: Any, key: StudyKey, number: int, choice: int, *, how: str = "key") -> None:
    """Answer the triplet of this number, once the page takes an answer."""
    until(page, f"state.answers.length === {number} && shownAt !== null && performance.now() - shownAt > {SETTLED}")
    assert page.inner_text("#count") == f"{number + 1} of {len(key.triplets)}"
    if how == "key":
        page.keyboard.press(str(choice))
    else:
        page.locator(".picture").nth(choice - 1).tap()


def shown(page: Any) -> str:
    """Name of the triplet on the screen."""
    return page.evaluate("order[state.answers.length]")


def png_of(url: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8)


def report(study: Path, *files: Path) -> dict[str, Any]:
    assert main(["report", str(study), "--answers", *map(str, files)]) == 0
    return json.loads((study / "user_study.json").read_text())


def choose(key: StudyKey, name: str) -> int:
    """A rater who passes the attention checks and finds one fake of three."""
    triplet = key.triplets[name]
    if triplet.method == CHECK or int(name, 16) % 3 == 0:
        return triplet.fake
    return triplet.fake % 3 + 1


def assert_numbers(record: dict[str, Any], key: StudyKey, choices: dict[str, int]) -> None:
    """The report's numbers are those of one rater's choices."""
    assert len(record["cells"]) == len({(t.method, t.shots) for t in key.triplets.values()}) - 1
    for cell in record["cells"]:
        names = [n for n, t in key.triplets.items() if (t.method, t.shots) == (cell["method"], cell["shots"])]
        found = sum(choices[name] == key.triplets[name].fake for name in names)
        assert (cell["user"]["found"], cell["user"]["of"]) == (found, len(names))
    assert sum(cell["user"]["of"] for cell in record["cells"]) == 30
    others = [choice for name, choice in choices.items() if name not in key.checks]
    assert record["sides"] == [others.count(side) for side in (1, 2, 3)]


def test_a_whole_study_by_keyboard(browser: Any, study: tuple[Path, StudyKey], tmp_path: Path) -> None:
    folder, key = study
    frames = read_study_frames((folder / "frames.txt").read_text())
    choices: dict[str, int] = {}
    with running(folder) as (_, address), browser.new_context(**DESKTOP) as context:
        page, wrong = watched(context)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.locator("#begin:enabled").wait_for()
        shot(page, tmp_path, "desktop-consent")
        begin(page)
        for number in range(33):
            until(page, f"state.answers.length === {number} && shownAt !== null")
            name = shown(page)
            choices[name] = choose(key, name)
            if key.triplets[name].method != CHECK:
                drawn = np.split(triplet_strip(frames, key.triplets[name], seed=0, study=key.study), 3, axis=1)
                seen = [cv2.imdecode(png_of(url), cv2.IMREAD_COLOR_RGB) for url in page.evaluate(CANVASES)]
                assert np.array_equal(seen, drawn), "each side shows the image that the key says"
            if number in (4, 5) or name in key.checks:
                shot(page, tmp_path, f"desktop-{'check' if name in key.checks else number}")
            rate(page, key, number, choices[name])
        page.get_by_text("Your answers were received").wait_for()
        shot(page, tmp_path, "desktop-end")
        assert wrong == []
    assert len(choices) == 33
    assert all(url.startswith((address, "data:")) for url in requests), "nothing is loaded from elsewhere"
    assert [url for url in requests if "key" in url] == []
    record = report(folder)
    assert [rater["excluded"] for rater in record["raters"]] == [""]
    assert_numbers(record, key, choices)


def test_a_whole_study_by_touch_from_the_disk(browser: Any, study: tuple[Path, StudyKey], tmp_path: Path) -> None:
    folder, key = study
    choices: dict[str, int] = {}
    with browser.new_context(**PHONE, accept_downloads=True, offline=True) as context:
        page, wrong = watched(context)
        page.goto((folder / "page/index.html").as_uri())
        page.locator("#begin:enabled").wait_for()
        shot(page, tmp_path, "phone-consent")
        page.locator("#begin").tap()
        for number in range(33):
            until(page, f"state.answers.length === {number} && shownAt !== null")
            if number == 10:  # a flat battery: the study goes on where it was, in the same order
                before = page.evaluate("order")
                page.reload()
                page.locator("#begin:enabled").wait_for()
                assert page.inner_text("#begin") == "I agree, continue with 11 of 33"
                page.locator("#begin").tap()
                assert page.evaluate("order") == before
            name = shown(page)
            choices[name] = choose(key, name)
            if number in (3, 4):
                shot(page, tmp_path, f"phone-{number}")
            rate(page, key, number, choices[name], how="touch")
        page.get_by_text("Please download your answers").wait_for()
        with page.expect_download() as download:
            page.locator("#download").tap()
        shot(page, tmp_path, "phone-end")
        download.value.save_as(tmp_path / "answers.json")
        assert re.fullmatch(r"answers-[0-9a-f]{8}-[0-9a-f]{8}\.json", download.value.suggested_filename)
        assert wrong == []
    assert not (folder / "answers.sqlite").exists()
    assert_numbers(report(folder, tmp_path / "answers.json"), key, choices)


def test_answers_survive_the_servers_death(browser: Any, study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    with browser.new_context(**DESKTOP) as context:
        page, _ = watched(context)
        with running(folder) as (server, address):
            page.goto(address)
            begin(page)
            until(page, "loaded.size === 33")
            for number in range(33):
                if number == 5:
                    until(page, "unsent().length === 0")
                    server.send_signal(signal.SIGKILL)
                    server.wait()
                until(page, f"state.answers.length === {number} && shownAt !== null")
                rate(page, key, number, choose(key, shown(page)))
        page.get_by_text("28 of your answers were not received").wait_for()
        port = address.rstrip("/").rsplit(":", 1)[1]
        with running(folder, port=port):
            page.locator("#send").click()
            page.get_by_text("Your answers were received").wait_for()
    assert report(folder)["raters"][0]["answers"] == 30


def test_hasty_fingers_answer_once(browser: Any, study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    with browser.new_context(**DESKTOP) as context:
        page, _ = watched(context)
        page.goto((folder / "page/index.html").as_uri())
        begin(page)
        rate(page, key, 0, 2)
        for other in ("2", "2", "4", "a", "Enter", " ", "Control+1"):
            page.keyboard.press(other)
        time.sleep(SETTLED / 1000)
        page.keyboard.down("3")
        page.keyboard.down("3")  # held: it repeats
        time.sleep(SETTLED / 1000)
        page.keyboard.down("3")
        assert [given["choice"] for given in page.evaluate("state.answers")] == [2, 3]
        assert all(given["milliseconds"] >= 300 for given in page.evaluate("state.answers"))


def test_every_rater_has_an_order_of_their_own(browser: Any, study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    orders = []
    for _ in range(3):
        with browser.new_context(**DESKTOP) as context:
            page, _ = watched(context)
            page.goto((folder / "page/index.html").as_uri())
            orders.append(tuple(page.evaluate("order")))
    assert len(set(orders)) == 3
    assert all(sorted(order) == sorted(key.triplets) for order in orders)


def test_a_missing_image_can_be_tried_again(browser: Any, study: tuple[Path, StudyKey]) -> None:
    folder, key = study
    hidden = folder / "away"
    (folder / "page/pictures").rename(hidden)
    with browser.new_context(**DESKTOP) as context:
        page, _ = watched(context)
        page.goto((folder / "page/index.html").as_uri())
        page.get_by_text("An image could not be loaded").wait_for()
        hidden.rename(folder / "page/pictures")
        page.locator("#retry").click()
        begin(page)
        rate(page, key, 0, 1)


@pytest.mark.parametrize(
    "screen", [DESKTOP, PHONE, SMALL_PHONE, LANDSCAPE], ids=["desktop", "phone", "small", "landscape"]
)
def test_all_three_are_seen_without_scrolling(
    browser: Any, study: tuple[Path, StudyKey], tmp_path: Path, screen: Any
) -> None:
    with browser.new_context(**screen) as context:
        page, _ = watched(context)
        page.goto((study[0] / "page/index.html").as_uri())
        begin(page)
        viewport = screen["viewport"]
        boxes = [button.bounding_box() for button in page.locator(".picture").all()]
        header = page.locator("#rating header").bounding_box()
        for box in boxes:
            assert box["width"] == pytest.approx(box["height"])
            assert box["width"] >= 100, "large enough to judge and to touch"
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= viewport["width"]
            assert box["y"] >= header["y"] + header["height"]
            assert box["y"] + box["height"] <= viewport["height"]
        sizes = {round(box["width"], 3) for box in boxes}
        assert len(sizes) == 1, "no image is larger than another"
        scroll = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert scroll == [viewport["height"], viewport["width"]]
        shot(page, tmp_path, f"screen-{viewport['width']}")
