"""Serves the page on which landmarks are placed by hand, to this machine alone, and saves them as JSON."""

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from flask import Flask, Response, request, send_from_directory
from jaxtyping import Float, UInt8

from th_jax.data.landmark_editor.proposal import average_face, propose
from th_jax.data.landmark_file import check_landmarks, parse_point, read_landmark_file
from th_jax.landmarks.scheme import CONTOURS, IBUG_POINTS
from th_jax.storage.files import whole_file
from th_jax.storage.strict_json import parse_json
from th_jax.web import harden, serve_app

PAGE = Path(__file__).with_name("page")
FILES = ("editor.js", "editor.css")

HOST = "127.0.0.1"

_MAX_BODY = 65_536

Points = Float[np.ndarray, "68 2"]


def make_app(image: UInt8[np.ndarray, "H W 3"], out: Path, *, found: Points | None = None) -> Flask:
    """Create the WSGI application for one photo.

    GET / returns the page and its files, GET /image.png the photo, GET /face its size and the points to begin with. POST
    /propose takes placed points, `{"placed": {"30": [x, y]}}`, and returns all 68. POST /save takes `{"landmarks": [[x, y],
    ...]}` and writes them. Other replies: 400 with the reason if the points are not of a face, 403 for a request under
    another host's name, 415 if it is not declared as JSON, 503 if the file cannot be written.

    Args:
        image: upright RGB photo.
        out: JSON file to write. If it exists, its points are those to begin with.
        found: points that a detector found, in pixels; without them the average face is proposed.

    Raises:
        ValueError: if `out` does not end in .json, or holds something else than landmarks of this photo.
    """
    height, width = image.shape[:2]
    if out.suffix.lower() != ".json":
        raise ValueError(f"landmarks are saved as JSON, but {out} does not end in .json")
    start = average_face(height=height, width=width) if found is None else found.astype(np.float64)
    placed = found is not None
    if out.exists():
        start = read_landmark_file(out, height=height, width=width)[:IBUG_POINTS].astype(np.float64)
        placed = True
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    app = Flask("th_jax.data.landmark_editor", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY

    @app.before_request
    def only_this_machine() -> tuple[dict[str, str], int] | None:
        # A page elsewhere could point a name of its own to this address, and then read the photo.
        if request.host.rsplit(":", 1)[0] not in (HOST, "localhost"):
            return {"error": f"open the page as http://{HOST}"}, 403
        if request.method == "POST" and request.mimetype != "application/json":
            return {"error": "points must be posted as application/json"}, 415
        return None

    @app.get("/")
    def index() -> Response:
        return send_from_directory(PAGE, "index.html", max_age=0)

    @app.get("/<name>")
    def file(name: str) -> Response | tuple[dict[str, str], int]:
        if name not in FILES:
            return {"error": f"there is no {name}"}, 404
        return send_from_directory(PAGE, name, max_age=0)

    @app.get("/image.png")
    def picture() -> Response:
        return Response(encoded, mimetype="image/png")

    @app.get("/face")
    def face() -> dict[str, Any]:
        contours = [{"points": contour.points, "closed": contour.closed} for contour in CONTOURS]
        return {
            "width": width, "height": height, "points": start.tolist(), "placed": placed, "contours": contours,
        }  # fmt: skip

    @app.post("/propose")
    def proposed() -> dict[str, Any] | tuple[dict[str, str], int]:
        try:
            return {"points": propose(_placed(request.get_data()), start).round(2).tolist()}
        except ValueError as error:
            return {"error": str(error)}, 400

    @app.post("/save")
    def save() -> dict[str, str] | tuple[dict[str, str], int]:
        try:
            points = _landmarks(request.get_data())
            check_landmarks(out.name, points, height=height, width=width)
            with whole_file(out) as written:
                written.write((json.dumps({"landmarks": points.round(2).tolist()}) + "\n").encode())
        except ValueError as error:
            return {"error": str(error)}, 400
        except OSError as error:
            return {"error": f"cannot write {out.name}: {error.strerror or error}"}, 503
        return {"saved": str(out)}

    harden(app)
    return app


def serve_editor(
    image: UInt8[np.ndarray, "H W 3"], out: Path, *, found: Points | None = None, port: int = 8000
) -> None:
    """Serve the page to this machine until interrupted.

    Raises:
        ValueError, OSError: as `make_app`; or if the port is invalid or in use.
    """
    serve_app(make_app(image, out, found=found), host=HOST, port=port, at_end=lambda: print(_end(out)))


def _end(out: Path) -> str:
    return f"landmarks: {out}" if out.exists() else "nothing was saved"


def _placed(body: bytes) -> dict[int, tuple[float, float]]:
    content = parse_json(body.decode("utf-8"), name="the request")
    entries = content.get("placed") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ValueError('expected {"placed": {"number": [x, y]}}')
    placed = {}
    for name, point in entries.items():
        if not (name.isascii() and name.isdigit() and int(name) < IBUG_POINTS):
            raise ValueError(f"points are numbered 0 to {IBUG_POINTS - 1}, but {name[:20]!r} was given")
        placed[int(name)] = _point(name, point)
    return placed


def _landmarks(body: bytes) -> Points:
    content = parse_json(body.decode("utf-8"), name="the request")
    points = content.get("landmarks") if isinstance(content, dict) else None
    if not isinstance(points, list) or len(points) != IBUG_POINTS:
        raise ValueError(f'expected {{"landmarks": [[x, y], ...]}} with {IBUG_POINTS} points')
    return np.array([_point(str(number), point) for number, point in enumerate(points)], np.float64)


def _point(name: str, point: object) -> tuple[float, float]:
    x, y = parse_point(name, point)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"point {name} is not finite")
    return x, y
