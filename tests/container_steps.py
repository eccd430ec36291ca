"""The Dockerfile's steps in a bare Debian without a container engine: `make container-test` (root, debootstrap, the network).

The base image is Debian with its own Python, into a folder; COPY, RUN, ENV, ARG, WORKDIR and USER are done there by chroot.
Then the studio runs as the Dockerfile says: as its user, on a root that is mounted read-only, with a volume. Its health is
asked for as by an engine, a user makes an avatar of a bundled image over HTTP, and the studio ends on request.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.test_container import instructions
from th_jax.avatars.examples import write_shots

ROOT = Path(__file__).parent.parent
SUITE, MIRROR = "trixie", "http://deb.debian.org/debian"
PACKAGES = "python3-venv,ca-certificates"
ADDRESS = "http://127.0.0.1:7860"
MINUTES = 15
NO_MORE: Mapping[str, str] = {}


class Image:
    """A folder that becomes the image, and what the Dockerfile says of its processes."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.user = root, "/", "0:0"
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.argument: dict[str, str] = {}
        self.entry: dict[str, list[str]] = {}
        self.health: list[str] = []

    def build(self) -> None:
        """Do the instructions in their order."""
        for name, rest in instructions():
            print(f"{name} {rest}", flush=True)
            if name == "FROM":
                self._base()
            elif name == "ARG":
                self.argument |= [rest.split("=")]
            elif name == "ENV":
                self.environment |= dict(one.split("=") for one in rest.split())
            elif name == "WORKDIR":
                self.folder = rest
                (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif name == "COPY":
                assert rest == ". ."
                shutil.rmtree(self.root / self.folder.lstrip("/"))
                (self.root / self.folder.lstrip("/")).mkdir()
                archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
                subprocess.run(["tar", "x"], cwd=self.root / self.folder.lstrip("/"), input=archive, check=True)
            elif name == "RUN":
                subprocess.run(self.command(["sh", "-e", "-c", rest], more=self.argument), check=True)
            elif name == "USER":
                self.user = rest
            elif name in ("ENTRYPOINT", "CMD"):
                self.entry[name] = json.loads(rest)
            elif name == "HEALTHCHECK":
                self.health = json.loads(rest[rest.index("[") :])
            else:
                assert name in ("VOLUME", "EXPOSE"), f"{name} is not known here"

    def _base(self) -> None:
        finished = self.root / "base-is-complete"
        if not finished.exists():
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(self.root), MIRROR]
            subprocess.run(command, check=True)
            # An image of Python has one that Debian's packages know nothing of.
            subprocess.run(self.command(["python3", "-m", "venv", "/usr/local"]), check=True)
            finished.touch()
        for path in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(f"/{path}", self.root / path)

    def command(
        self, arguments: list[str], *, more: Mapping[str, str] = NO_MORE, volume: Path | None = None
    ) -> list[str]:
        """Return the command line of a process in the image; with a volume, the rest of the root is read-only."""
        environment = [f"{name}={value}" for name, value in {**self.environment, **more}.items()]
        place = "$ROOT"
        steps = [f"mount --bind {place} {place}", f"mount -t proc proc {place}/proc", f"mount --rbind /dev {place}/dev"]
        if volume is not None:
            steps += [f"mount --bind '{volume}' {place}/data", f"mount -o remount,ro,bind {place}"]
        steps.append(f'exec chroot --userspec={self.user} {place} env -i "$@"')
        started = ["env", f"ROOT={self.root}", "unshare", "--mount", "sh", "-e", "-c", "; ".join(steps), "sh"]
        return [*started, *environment, "sh", "-c", f'cd {self.folder}; exec "$@"', "sh", *arguments]

    def studio(self, *arguments: str) -> list[str]:
        """Return the words after the name of the image in `docker run`, or the Dockerfile's own."""
        return [*self.entry["ENTRYPOINT"], *(arguments or self.entry["CMD"])]


def ask(path: str, token: str, *, body: bytes | None = None, kind: str = "") -> Any:
    """Ask the studio as the user ada."""
    secret = base64.b64encode(f"ada:{token}".encode()).decode()
    headers = {"authorization": f"Basic {secret}", **({"content-type": kind} if kind else {})}
    with urllib.request.urlopen(urllib.request.Request(ADDRESS + path, body, headers), timeout=60) as answer:
        return json.load(answer)


def form(fields: dict[str, str], image: Path) -> tuple[bytes, str]:
    """Return the body of a form with one file, and its type."""
    parts = [
        f'--edge\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    head = f'--edge\r\ncontent-disposition: form-data; name="shots"; filename="{image.name}"\r\n\r\n'
    body = "".join([*parts, head]).encode() + image.read_bytes() + b"\r\n--edge--\r\n"
    return body, "multipart/form-data; boundary=edge"


def until(what: str, done: Any, *, process: subprocess.Popen[bytes]) -> Any:
    """Wait for a true value while a process runs."""
    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        if found := done():
            return found
        if process.poll() is not None:
            raise SystemExit(f"{what}: the studio ended with {process.returncode}")
        time.sleep(1)
    raise SystemExit(f"{what}: not after {MINUTES} minutes")


def run(image: Image, volume: Path) -> None:
    """Use the image as the guide says."""
    shutil.chown(volume, *map(int, image.user.split(":")))
    added = image.command(image.studio("studio", "--users", "/data/users.json", "--add-user", "ada"), volume=volume)
    token = subprocess.run(added, check=True, capture_output=True, text=True).stdout.split()[-1]
    refused = subprocess.run(
        image.command(["touch", "/opt/th_jax/written"], volume=volume), capture_output=True, check=False
    )
    assert refused.returncode, "the root is read-only"
    served = subprocess.Popen(image.command(image.studio(), volume=volume))
    try:
        health = image.command(
            image.health[image.health.index("CMD") + 1 :] if "CMD" in image.health else image.health, volume=volume
        )
        until(
            "health", lambda: subprocess.run(health, capture_output=True, check=False).returncode == 0, process=served
        )
        assert Path(f"/proc/{served.pid}/status").read_text().split("Uid:")[1].split()[0] == image.user.split(":")[0]
        with tempfile.TemporaryDirectory() as place:
            shot = sorted(write_shots("head", Path(place)).iterdir())[0]
            fields = {"name": "head", "subject": "a rendered head", "basis": "synthetic"}
            body, kind = form(fields, shot)
            number = ask("/avatars", token, body=body, kind=kind)["job"]
        job = until(
            "the avatar",
            lambda: (told := ask(f"/jobs/{number}", token))["state"] in ("finished", "failed") and told,
            process=served,
        )
        print(job["state"], job["stage"])
        assert job["state"] == "finished"
        assert (volume / "studio/users/ada/avatars/head.safetensors").is_file()
    finally:
        served.send_signal(signal.SIGTERM)
        try:
            served.wait(60)
        except subprocess.TimeoutExpired:
            served.kill()
    assert served.wait() == 0, served.returncode


def main() -> int:
    """Build and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/container"), help="folder of the image")
    options = parser.parse_args()
    if os.geteuid() or not shutil.which("debootstrap"):
        print("container_steps: needs root and debootstrap (apt-get install debootstrap)", file=sys.stderr)
        return 1
    root = options.root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    image = Image(root)
    image.build()
    with tempfile.TemporaryDirectory() as volume:
        run(image, Path(volume))
    print("the image's steps and its studio work")
    return 0


if __name__ == "__main__":
    sys.exit(main())
