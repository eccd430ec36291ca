"""Serves the page of a user study with Flask and Waitress, and stores the answers posted to it."""

import sqlite3
import sys
from pathlib import Path

from flask import Flask, Response, request, send_from_directory

from th_jax.evaluation.user_study.answer_key import PAGE_FOLDER, read_key
from th_jax.evaluation.user_study.answers import ConflictingAnswer, MalformedSheet, read_sheet, sheet_limit
from th_jax.evaluation.user_study.store import ANSWERS_FILE, RATERS, AnswerStore, StudyIsFull
from th_jax.web import check_port, harden, serve_app


def make_app(study: str | Path, *, raters: int = RATERS) -> Flask:
    """Create the WSGI application of the study in a folder made by `build`.

    GET / returns the page and its files. POST /answers takes a sheet: 201 if answers were new, 200 if all were known,
    400 if it is malformed, 403 if the study is full, 409 if it contradicts an earlier answer, 413 if it is too large,
    415 if it is not declared as JSON, 503 if it cannot be stored. The body gives the reason in one sentence.

    Raises:
        FileNotFoundError, ValueError: if the folder is not a study, or its answers belong to another one.
        OSError: if the answers cannot be opened.
    """
    key = read_key(study)
    page = Path(study).absolute() / PAGE_FOLDER
    if not (page / "index.html").is_file():
        raise FileNotFoundError(f"{study} is not a user study: {PAGE_FOLDER}/index.html is missing")
    if raters < 1:
        raise ValueError(f"a study needs 1 or more raters, got {raters}")
    store = AnswerStore(Path(study) / ANSWERS_FILE, key, raters=raters)
    app = Flask("th_jax.evaluation.user_study", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = sheet_limit(key)

    @app.get("/")
    def index() -> Response:
        return send_from_directory(page, "index.html", max_age=0)

    @app.get("/<path:name>")
    def file(name: str) -> Response:
        return send_from_directory(page, name)

    @app.post("/answers")
    def answers() -> tuple[dict[str, object], int]:
        # Other pages can post a form or plain text without permission, but not this type.
        if request.mimetype != "application/json":
            return {"error": "answers must be posted as application/json"}, 415
        try:
            new = store.add(read_sheet(request.get_data(), key))
        except MalformedSheet as error:
            return {"error": str(error)}, 400
        except StudyIsFull as error:
            return {"error": str(error)}, 403
        except ConflictingAnswer as error:
            return {"error": str(error)}, 409
        except sqlite3.Error as error:  # the disk is full or gone: the page keeps the answer and sends it again
            return {"error": f"cannot store the answer: {error}"}, 503
        return {"new": new}, 201 if new else 200

    harden(app)
    return app


def serve_study(study: str | Path, *, host: str = "127.0.0.1", port: int = 8000, raters: int = RATERS) -> None:
    """Serve until interrupted. Port 0 selects a free one; the address is printed.

    Raises:
        FileNotFoundError, ValueError, OSError: as `make_app`; or if the address is in use, or not one of this machine.
    """
    check_port(port)
    app = make_app(study, raters=raters)
    answers = Path(study) / ANSWERS_FILE
    serve_app(app, host=host, port=port, at_end=lambda: print(f"answers: {answers}", file=sys.stderr))
