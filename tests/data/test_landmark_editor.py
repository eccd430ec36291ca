"""The page for landmarks by hand: proposals that follow placed points, saving, and what the server refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flask", reason='needs the extra "study"')

from th_jax.cli.main import main
from th_jax.data.landmark_editor.proposal import average_face, propose
from th_jax.data.landmark_editor.serve import make_app, serve_editor
from th_jax.data.landmark_file import read_landmark_file

HEIGHT, WIDTH = 240, 320
JSON = {"Content-Type": "application/json"}
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def start() -> np.ndarray:
    return average_face(height=HEIGHT, width=WIDTH)


def client_of(photo: np.ndarray, out: Path, **found: Any) -> Any:
    client = make_app(photo, out, **found).test_client()
    client.environ_base["HTTP_HOST"] = "127.0.0.1:8000"
    return client


def test_the_average_face_lies_in_the_middle(start: np.ndarray) -> None:
    assert start.min() > 0
    np.testing.assert_allclose(start.mean(0), (WIDTH / 2, HEIGHT / 2))
    assert start[36, 0] < start[45, 0]  # the image's left
    assert start[8, 1] > start[30, 1] > start[27, 1]  # chin below nose


def test_few_placed_points_move_turn_and_scale_the_face(start: np.ndarray) -> None:
    np.testing.assert_array_equal(propose({}, start), start)
    np.testing.assert_allclose(propose({30: tuple(start[30] + np.array([7, -3]))}, start), start + np.array([7, -3]))
    around = np.array([[0.8, 0.6], [-0.6, 0.8]])
    wanted = 1.4 * (start - start[30]) @ around + (150, 90)
    np.testing.assert_allclose(propose({n: tuple(wanted[n]) for n in (36, 45, 8)}, start), wanted, atol=1e-6)


def test_many_placed_points_are_fitted_by_the_model_and_stay(rendered_faces: tuple[np.ndarray, np.ndarray]) -> None:
    """A turned face from twelve of its points: the others are nearer than those of the turned average face."""
    truth = rendered_faces[0][:, :68].astype(np.float64) * 200
    turned = truth[np.argmax(np.abs(truth[:, 30, 0] - truth[:, [0, 16], 0].mean(1)))]
    start = average_face(height=200, width=200)
    numbers = (0, 8, 16, 17, 26, 30, 36, 39, 42, 45, 48, 54)
    placed = {number: tuple(turned[number]) for number in numbers}
    came = propose(placed, start)
    np.testing.assert_array_equal(came[list(numbers)], turned[list(numbers)])
    rest = np.setdiff1d(np.arange(68), numbers)
    few = propose({number: placed[number] for number in (0, 8, 16, 30, 45)}, start)
    error = [np.linalg.norm(points[rest] - turned[rest], axis=-1).mean() for points in (came, few)]
    assert error[0] < 0.6 * error[1]
    assert error[0] < 0.05 * np.linalg.norm(turned[45] - turned[36])


def test_the_page_begins_with_the_average_a_detected_or_the_saved_face(
    photo: np.ndarray, start: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "face.json"
    face = client_of(photo, out).get("/face").json
    assert (face["width"], face["height"], face["placed"]) == (WIDTH, HEIGHT, False)
    np.testing.assert_allclose(face["points"], start)
    assert sorted({number for contour in face["contours"] for number in contour["points"]}) == list(range(68))
    detected = client_of(photo, out, found=start.astype(np.float32) + 3).get("/face").json
    np.testing.assert_allclose(detected["points"], start + 3, atol=1e-4)
    assert detected["placed"]
    out.write_text(json.dumps({"landmarks": (start + 5).tolist()}))
    again = client_of(photo, out).get("/face").json
    np.testing.assert_allclose(again["points"], start + 5, atol=1e-4)


def test_what_is_saved_is_read_back_as_landmarks(photo: np.ndarray, start: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "face.json"
    client = client_of(photo, out)
    placed = {str(number): (start[number] + np.array([4, 2])).tolist() for number in (30, 36, 45)}
    points = client.post("/propose", json={"placed": placed}).json["points"]
    np.testing.assert_allclose(points, start + np.array([4, 2]), atol=0.02)
    assert client.post("/save", json={"landmarks": points}).json == {"saved": str(out)}
    np.testing.assert_allclose(read_landmark_file(out, height=HEIGHT, width=WIDTH), points, atol=1e-4)


def test_only_the_page_its_files_and_the_photo_are_served(photo: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    client = client_of(photo, tmp_path / "face.json")
    index = client.get("/")
    assert b"<canvas" in index.data
    assert "default-src 'none'" in index.headers["Content-Security-Policy"]
    for path, kind in (("/editor.js", "javascript"), ("/editor.css", "css"), ("/image.png", "image/png")):
        reply = client.get(path)
        assert reply.status_code == 200
        assert kind in reply.content_type
    for path in ("/index.html", "/serve.py", "/../serve.py", "/%2e%2e/serve.py", "/secret.txt", "/save"):
        assert client.get(path).status_code in (404, 405), path


def test_other_hosts_forms_and_large_bodies_are_refused(photo: np.ndarray, tmp_path: Path) -> None:
    client = client_of(photo, tmp_path / "face.json")
    for path in ("/", "/image.png", "/face"):
        assert client.get(path, headers={"Host": "elsewhere.example"}).status_code == 403
    assert client.post("/save", data="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/save", data=b" " * 100_000, headers=JSON).status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/propose", b"{", "the request"),
        ("/propose", b"[]", 'expected {"placed"'),
        ("/propose", b'{"placed": {"68": [1, 2]}}', "numbered 0 to 67, but '68'"),
        ("/propose", b'{"placed": {"-1": [1, 2]}}', "numbered 0 to 67, but '-1'"),
        ("/propose", b'{"placed": {"3": [1]}}', "point 3: expected [x, y]"),
        ("/propose", b'{"placed": {"3": [1, true]}}', "point 3: expected [x, y]"),
        ("/propose", b'{"placed": {"3": [1, 1e999]}}', "1e999 is too large"),
        ("/propose", b"\xff", "utf-8"),
        ("/save", b'{"landmarks": [[1, 2]]}', "with 68 points"),
        ("/save", json.dumps({"landmarks": [[5, 5]] * 68}).encode(), "face of 0 px"),
        ("/save", json.dumps({"landmarks": [[9000, 5]] * 68}).encode(), "far outside the image"),
    ],
)
def test_wrong_requests_are_answered_with_the_reason(
    path: str, body: bytes, message: str, photo: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "face.json"
    reply = client_of(photo, out).post(path, data=body, headers=JSON)
    assert reply.status_code == 400
    assert message in reply.json["error"]
    assert not out.exists()


def test_a_file_that_cannot_be_written_is_said(photo: np.ndarray, start: np.ndarray, tmp_path: Path) -> None:
    client = client_of(photo, tmp_path / "missing" / "face.json")
    reply = client.post("/save", json={"landmarks": start.tolist()})
    assert reply.status_code == 503
    assert "cannot write face.json" in reply.json["error"]


def test_wrong_places_are_errors_before_anything_is_served(
    photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.json"):
        make_app(photo, tmp_path / "face.txt")
    with pytest.raises(ValueError, match="port must be 0 to 65535"):
        serve_editor(photo, tmp_path / "face.json", port=70_000)
    assert main(["landmarks", str(tmp_path / "missing.jpg")]) == 1
    assert "missing.jpg" in capsys.readouterr().err
