"""The page for landmarks in a real headless Chromium: drags, keys, undo, and what is saved.

`TH_JAX_CHROMIUM` names the browser; with `TH_JAX_SCREENSHOTS` its screenshots are kept in that folder.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="see `make browser-test`")
pytest.importorskip("flask", reason='needs the extra "study"')

from playwright import sync_api

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "th_jax" / "assets" / "portrait" / "astronaut.jpg"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The command in a process of its own: its address, and the file that it writes."""
    out = tmp_path / "face.json"
    options = [str(PORTRAIT), "--out", str(out), "--no-detection", "--port", "0"]
    command = [sys.executable, "-m", "th_jax.cli.main", "landmarks", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("serving http://127.0.0.1:"), line
            yield line.split()[1], out
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(10)
            finally:
                server.kill()


@pytest.fixture
def page(served: tuple[str, Path]) -> Iterator[Any]:
    path = os.environ.get("TH_JAX_CHROMIUM")
    if not path:
        pytest.fail("TH_JAX_CHROMIUM must name a Chromium: see `make browser-test`")
    with sync_api.sync_playwright() as playwright:
        # Containers run as root, where Chromium's sandbox does not; it sees this project's page alone.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = chromium.new_page(viewport={"width": 1000, "height": 800})
        wrong: list[str] = []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        opened.goto(served[0])
        until(opened, "state !== null && view.scale > 1")
        yield opened
        chromium.close()
        assert not wrong


def until(page: Any, condition: str) -> None:
    """Wait for a JavaScript expression. (Playwright's own wait would need eval, which the page forbids.)"""
    deadline = time.monotonic() + 120  # the first fit is compiled
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never true: {condition}"
        page.wait_for_timeout(20)


def points(page: Any) -> np.ndarray:
    return np.array(page.evaluate("state.points"))


def drag(page: Any, number: int, to: tuple[float, float]) -> None:
    """Drag a point to a place in the photo's pixels, and wait for the proposal."""
    box = page.locator("#face").bounding_box()
    start, end = (page.evaluate(f"toScreen({json.dumps(one)})") for one in (points(page)[number].tolist(), list(to)))
    before = page.evaluate("asked")
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
    page.mouse.up()
    until(page, f"asked > {before} && /placed/.test(document.getElementById('message').textContent)")
    page.wait_for_timeout(100)


def shot(page: Any, tmp_path: Path, name: str) -> None:
    page.screenshot(path=Path(os.environ.get("TH_JAX_SCREENSHOTS", tmp_path)) / f"{name}.png")


def test_a_face_is_placed_undone_and_saved(page: Any, served: tuple[str, Path], tmp_path: Path) -> None:
    start = points(page)
    assert page.inner_text("#message") == "place a point on each eye, the nose and the mouth to begin"
    shot(page, tmp_path, "landmarks_begin")
    wanted = {
        36: (101, 110),
        45: (152, 109),
        30: (127, 135),
        48: (108, 154),
        54: (147, 152),
        8: (128, 184),
        0: (86, 112),
    }
    for number, place in wanted.items():
        drag(page, number, place)
    until(page, "Object.keys(state.placed).length === 7")
    found = points(page)
    for number, place in wanted.items():
        np.testing.assert_allclose(found[number], place, atol=1)
    assert np.linalg.norm(found - start, axis=-1).min() > 0.5  # the others followed
    shot(page, tmp_path, "landmarks_placed")

    page.keyboard.press("Control+z")
    until(page, "Object.keys(state.placed).length === 6")
    page.keyboard.press("Control+y")
    until(page, "Object.keys(state.placed).length === 7")
    np.testing.assert_allclose(points(page), found)

    page.keyboard.press("Tab")
    assert page.evaluate("selected") == 1
    page.keyboard.press("Shift+ArrowRight")
    until(page, "state.placed[1] === true")
    np.testing.assert_allclose(points(page)[1] - found[1], (10, 0), atol=1e-6)
    page.keyboard.press("u")
    until(page, "!state.placed[1]")
    page.keyboard.press("Control+s")
    until(page, "/^saved/.test(document.getElementById('message').textContent)")
    saved = json.loads(served[1].read_text())["landmarks"]
    np.testing.assert_allclose(saved, points(page), atol=0.01)


def test_the_page_is_used_by_keyboard_alone_and_zooms(page: Any, served: tuple[str, Path]) -> None:
    before = points(page)
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    until(page, "past.length === 3 && state.placed[30] === true")
    np.testing.assert_allclose(points(page)[30] - before[30], (0, 3), atol=1e-6)
    scale = page.evaluate("view.scale")
    page.keyboard.press("+")
    assert page.evaluate("view.scale") > 1.2 * scale
    page.keyboard.press("0")
    assert page.evaluate("view.scale") == pytest.approx(scale)
    page.keyboard.press("Escape")  # to the button
    page.keyboard.press("Enter")
    until(page, "/^saved/.test(document.getElementById('message').textContent)")
    assert len(json.loads(served[1].read_text())["landmarks"]) == 68
