"""A studio's operations over HTTP: avatars, videos, jobs, checks and health; /openapi.json describes them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, no_type_check

from th_jax.media import MediaError
from th_jax.studio.drives import DriveSettings
from th_jax.studio.folder import DiskFull, stored_name
from th_jax.studio.jobs import Progress
from th_jax.studio.limits import TooMany
from th_jax.studio.making import ConsentForm
from th_jax.studio.session import Studio
from th_jax.studio.studios import Studios


def job_facts(job: Progress) -> dict[str, Any]:
    """Return a job as JSON values, without paths of this machine."""
    return {
        "job": job.number,
        "title": job.request.title,
        "state": job.state.value,
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "seconds_left": job.seconds_left,
        "losses": list(job.losses),
        "result": None if job.result is None else job.result.name,
    }


@contextmanager
def stored(studio: Studio, uploads: list[Any]) -> Iterator[list[Path]]:
    """Store uploads in the studio's folder under plain names until the end of the block."""
    with tempfile.TemporaryDirectory(dir=studio.folder.uploads) as place:
        paths = []
        for number, upload in enumerate(uploads, 1):
            paths.append(Path(place) / stored_name(number, upload.filename or ""))
            with paths[-1].open("wb") as file:
                shutil.copyfileobj(upload.file, file)
        yield paths


STATUS = {TooMany: 429, DiskFull: 507, ValueError: 422, MediaError: 422}
"""HTTP's status for errors of the operations; the first that fits."""


def new_app() -> Any:
    """Return an empty FastAPI application."""
    import fastapi

    # The pages of the documentation would load scripts of other servers.
    return fastapi.FastAPI(title="th_jax studio", docs_url=None, redoc_url=None)


def add_health(app: Any, studios: Studios) -> None:
    """Add what a supervisor asks to a FastAPI application: whether the server answers, and accepts jobs."""

    @app.get("/health/live")
    def live() -> dict[str, bool]:
        """Whether the server answers."""
        return {"live": True}

    @app.get("/health/ready")
    def ready() -> dict[str, Any]:
        """Whether jobs are accepted, and how many are waiting."""
        accepted, waiting = studios.health()
        return {"ready": accepted, "waiting": waiting}


def add_api(app: Any, studio: Studio) -> None:
    """Add the operations to a FastAPI application.

    Errors are answers with the field `error`: 404 for unknown jobs, 409 for missing results, 422 for invalid input, 429 if
    too much was asked for, 507 if the disk is full.

    Args:
        app: the application.
        studio: the user's studio.
    """
    import fastapi
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse
    from fastapi.security import HTTPBasic

    def failed(_: fastapi.Request, error: Exception) -> JSONResponse:
        status = next(STATUS[kind] for kind in STATUS if isinstance(error, kind))
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooMany) else None
        return JSONResponse({"error": str(error)}, status, headers)

    def rejected(_: fastapi.Request, error: fastapi.HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    def invalid(_: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"error": "; ".join(found)}, 422)

    for kind in STATUS:
        app.add_exception_handler(kind, failed)
    app.add_exception_handler(fastapi.HTTPException, rejected)
    app.add_exception_handler(RequestValidationError, invalid)

    def known(number: int) -> Progress:
        try:
            return studio.jobs.progress_of(number)
        except KeyError:
            raise fastapi.HTTPException(404, f"there is no job {number}") from None

    # Only for the description: the entrance has checked it already.
    routes = fastapi.APIRouter(dependencies=[fastapi.Depends(HTTPBasic(auto_error=False))])

    @routes.post("/avatars", status_code=202)
    @no_type_check  # uploads are of Starlette's type, not of FastAPI's
    def make_avatar(
        shots: list[fastapi.UploadFile],
        name: str = fastapi.Form(),
        subject: str = fastapi.Form(),
        basis: str = fastapi.Form(description="self, consent_given, public_domain or synthetic"),
        uses: str = fastapi.Form("private", description="separated by commas"),
        scope: str = fastapi.Form(""),
        expires: str = fastapi.Form("", description="a date, or empty"),
    ) -> dict[str, Any]:
        """Record the consent and fine-tune an avatar of photos or a video."""
        form = ConsentForm(subject, basis, tuple(filter(None, uses.split(","))), scope, expires)
        with stored(studio, shots) as files:
            token = studio.store(files)
        try:
            return job_facts(studio.create(token, name, form).progress())
        except ValueError:
            studio.discard(token)
            raise

    @routes.get("/avatars")
    def avatars() -> list[dict[str, Any]]:
        """List the avatars."""
        return [card._asdict() | {"path": None, "preview": None} for card in studio.folder.cards()]

    @routes.delete("/avatars/{name}")
    def forget(name: str) -> dict[str, str]:
        """Delete an avatar with everything that belongs to it."""
        return {"done": studio.forget(name)}

    @routes.post("/videos", status_code=202)
    @no_type_check  # uploads are of Starlette's type, not of FastAPI's
    def make_video(
        avatar: str = fastapi.Form(),
        driver: fastapi.UploadFile | None = None,
        example: str | None = fastapi.Form(None, description="a bundled driver in place of a file"),
        settings: str = fastapi.Form("{}", description="settings as the page shows them, in JSON"),
    ) -> dict[str, Any]:
        """Drive an avatar."""
        chosen = DriveSettings.from_json(settings)
        with stored(studio, [] if driver is None else [driver]) as files:
            upload = files[0] if files else None
            return job_facts(studio.drive(avatar, chosen, upload=upload, example=example).progress())

    @routes.get("/jobs")
    def jobs() -> list[dict[str, Any]]:
        """List the jobs, the newest first."""
        return [job_facts(job) for job in studio.jobs.progress()]

    @routes.get("/jobs/{number}")
    async def job(number: int) -> dict[str, Any]:
        """Return a job's state and progress."""
        return job_facts(known(number))  # a row is read sooner than a thread takes over

    @routes.delete("/jobs/{number}")
    def cancel(number: int) -> dict[str, Any]:
        """Cancel a job."""
        known(number)
        studio.jobs.get(number).cancel()
        return job_facts(known(number))

    @routes.get("/jobs/{number}/result")
    def result(number: int) -> FileResponse:
        """Return the file that a job made."""
        path = known(number).result
        if path is None or not path.exists():
            raise fastapi.HTTPException(409, f"job {number} has no result")
        return FileResponse(path, filename=path.name)

    @routes.post("/verify")
    @no_type_check  # uploads are of Starlette's type, not of FastAPI's
    def verify(file: fastapi.UploadFile) -> dict[str, Any]:
        """Say what is known of a file's origin."""
        with stored(studio, [file]) as files:
            found = studio.verify(files[0])
        return {"verdict": found.verdict.value, "words": found.words, "reasons": list(found.reasons)}

    app.include_router(routes)
