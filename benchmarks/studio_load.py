"""Does the studio answer many clients while it fine-tunes? `python -m benchmarks.studio_load [--workers 1] [--clients 50]`.

A studio is started as the command does it, with a bundled person's avatar being fine-tuned. Clients then send requests at
once, each one after another: most ask for the state of a job, the others for lists and health, and each client submits a job
of its own. All of these jobs must be in the list afterwards. Needs the extra "studio".
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_START_SECONDS = 1800.0


class Answer(NamedTuple):
    """An answered request."""

    path: str
    status: int
    seconds: float
    job: int | None
    """Number of the job that it submitted."""


def started(folder: Path, workers: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start a studio, and wait until it answers."""
    import httpx

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "th_jax.cli.main", "studio", "--port", str(port), "--folder", str(folder)]
    process = subprocess.Popen([*command, "--workers", str(workers)])
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(f"{address}/health/ready", timeout=5.0)
            return process, address
        except httpx.HTTPError:
            time.sleep(0.5)
    raise SystemExit("the studio did not start")


def tuning_job(address: str, photos: list[Path]) -> int:
    """Begin an avatar, and return the number of its job once it is being fine-tuned."""
    import httpx

    files = [("shots", (photo.name, photo.read_bytes())) for photo in photos]
    form = {"name": "tuned", "subject": "rendered", "basis": "synthetic"}
    number = int(httpx.post(f"{address}/avatars", data=form, files=files, timeout=120.0).json()["job"])
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        job = httpx.get(f"{address}/jobs/{number}", timeout=120.0).json()
        if job["state"] not in ("waiting", "running"):
            raise SystemExit(f"the job of the benchmark ended early: {job['state']}: {job['stage']}")
        if job["state"] == "running" and job["stage"] == "fine-tuning":
            return number
        time.sleep(0.5)
    raise SystemExit("fine-tuning did not begin")


def client(address: str, number: int, requests: int, tuning: int, photo: Path, begin: threading.Event) -> list[Answer]:
    """Send one client's requests, one after another."""
    import httpx

    other = ("/jobs", "/avatars", "/health/ready")
    answers = []
    form = {"name": f"client-{number}", "subject": "rendered", "basis": "synthetic"}
    made = httpx.Request("POST", f"{address}/avatars", data=form, files={"shots": (photo.name, photo.read_bytes())})
    # httpx would spend more time of the same cores than the server.
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=300.0)
    begin.wait()
    for request in range(requests):
        path = other[(number + request // 5) % len(other)] if request % 5 == 4 else f"/jobs/{tuning}"
        before = time.perf_counter()
        if request == 0:
            path = "/avatars (POST)"
            connection.request("POST", "/avatars", made.read(), dict(made.headers))
        else:
            connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        job = json.loads(content).get("job") if request == 0 else None
        answers.append(Answer(path, answer.status, time.perf_counter() - before, job))
    return answers


def show(what: str, answers: list[Answer]) -> None:
    """Print a line: how long these requests took."""
    times = 1000 * np.array([answer.seconds for answer in answers])
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    print(f"{what:<24}{len(times):>9}{p50:>9.1f}{p95:>9.1f}{p99:>9.1f}{times.max():>9.1f}")


def measure(*, clients: int, requests: int, workers: int) -> bool:
    """Print the numbers, and return whether nothing was lost and no request failed."""
    import httpx

    from th_jax.avatars.examples import PEOPLE, write_shots

    with tempfile.TemporaryDirectory() as place:
        photos = sorted(write_shots(next(iter(PEOPLE)), Path(place) / "shots").iterdir())
        process, address = started(Path(place) / "studio", workers)
        try:
            tuning = tuning_job(address, photos)
            begin, each = threading.Event(), requests // clients
            with ThreadPoolExecutor(clients) as pool:
                asked = [
                    pool.submit(client, address, number, each, tuning, photos[0], begin) for number in range(clients)
                ]
                time.sleep(1.0)
                begun = time.perf_counter()
                begin.set()
                answers = [answer for one in asked for answer in one.result()]
            seconds = time.perf_counter() - begun
            tuned: dict[str, Any] = httpx.get(f"{address}/jobs/{tuning}", timeout=120.0).json()
            listed = {job["job"] for job in httpx.get(f"{address}/jobs", timeout=120.0).json()}
        finally:
            process.terminate()
            process.wait(60)
    submitted = [answer.job for answer in answers if answer.job is not None]
    failed = [answer for answer in answers if answer.status >= 500]
    lost = len(set(submitted) - listed) + len(submitted) - len(set(submitted)) + clients - len(submitted)
    print(
        f"{clients} clients, {len(answers)} requests in {seconds:.1f} s, {workers} worker processes, {os.cpu_count()} cores"
    )
    print(f"{len(failed)} answers of 500 or above, {lost} of {clients} submitted jobs lost or doubled")
    print(f"the avatar meanwhile: {tuned['state']}, {tuned['stage']}, {tuned['done']} of {tuned['total']}")
    print(f"{'milliseconds':<24}{'requests':>9}{'p50':>9}{'p95':>9}{'p99':>9}{'most':>9}")
    show("state of a job", [answer for answer in answers if answer.path == f"/jobs/{tuning}"])
    for path in sorted({answer.path for answer in answers if answer.path != f"/jobs/{tuning}"}):
        show(path, [answer for answer in answers if answer.path == path])
    return not failed and not lost


def main() -> int:
    """Measure; returns 1 if a request failed or a job was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=500, help="of all clients together")
    parser.add_argument("--workers", type=int, default=1, help="as of th-jax studio")
    options = parser.parse_args()
    return 0 if measure(clients=options.clients, requests=options.requests, workers=options.workers) else 1


if __name__ == "__main__":
    sys.exit(main())
