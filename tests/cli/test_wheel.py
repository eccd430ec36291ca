"""The built wheel without its checkout: an avatar and a video by `th-jax` alone; the source distribution has what git has."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.media import open_video

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_wheel_makes_an_avatar_and_drives_it(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "th-jax = th_jax.cli.main:main" in "".join(
            archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")
        )
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"th_jax"}
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}
    work = tmp_path / "work"
    work.mkdir()

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert python("-c", "import th_jax; print(th_jax.__file__)").strip() == str(site / "th_jax" / "__init__.py")
    record = VideoRecords(bundled_heads(), "heldout").read(0)
    (work / "ada.jpg").write_bytes(bytes(record.frames[0]))
    np.savez(work / "motion.npz", landmarks=record.landmarks[:10, :68])
    th_jax = ["-m", "th_jax.cli.main"]
    consent = ["consent", "make", "--subject", "Ada", "--basis", "synthetic", "--shots", "ada.jpg"]
    python(*th_jax, *consent, "--out", "ada.consent.json")
    made = ["finetune", "--meta", "heads", "--shots", "ada.jpg", "--consent", "ada.consent.json", "--out", "avatars"]
    assert "1 finished" in python(*th_jax, *made, "--set", "epochs=2")
    driven = [
        "animate",
        "--avatar",
        "avatars/ada.safetensors",
        "--driver",
        "motion.npz",
        "--fps",
        "25",
        "--out",
        "a.mp4",
    ]
    assert "10 frames at 25 frames/s" in python(*th_jax, *driven)
    with open_video(work / "a.mp4") as video:
        assert sum(1 for _ in video.frames()) == 10
    assert "generated" in python(*th_jax, "verify", "a.mp4")


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="compares with what git tracks")
def test_a_source_distribution_has_what_a_checkout_has(tmp_path: Path) -> None:
    """And the wheel that is made of it has the same files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    for name in tracked:
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "checkout" / name)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    made = [sys.executable, "-c", build, str(tmp_path)]
    subprocess.run(made, cwd=tmp_path / "checkout", check=True, capture_output=True)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert tracked - there == set()
    assert {name.split("/")[0] for name in there - tracked} == {"PKG-INFO", "th_jax.egg-info"}
    wheels = []
    for place in (tmp_path / "checkout", unpacked):
        out = tmp_path / f"wheel_of_{place.name}"
        pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(out), str(place)]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(*out.glob("*.whl")) as archive:
            wheels.append(sorted(archive.namelist()))
    assert wheels[0] == wheels[1]
