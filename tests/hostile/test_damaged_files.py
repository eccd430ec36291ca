"""Every kind of file, cut off, altered, exchanged or not there: opened whole or refused in a sentence, and nothing else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from tests.hostile.enormous_files import ENORMOUS
from tests.hostile.entry_points import ENTRY_POINTS, EntryPoint, clear_error
from tests.hostile.valid_files import TINY_CHANNELS
from th_jax.perceptual import vgg

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
PLACES = 100
SECONDS = 300

OTHER_FILES = {
    "zeros": bytes(300),
    "noise": np.random.default_rng(0).bytes(1000),
    "text": b"Dear Ada,\n" * 40,
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(80),
    "a video": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(80),
    "an archive": b"PK\x05\x06" + bytes(18),
    "a pickle": b"\x80\x04\x95\x0f\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.",
    "tensors": b"\x02\0\0\0\0\0\0\0{}",
    "an object": b"{}",
    "a list": b"[]",
    "a number": b"1e999",
    "no number": b"NaN",
    "nothing": b"null",
    "half a pair": b'"\\ud800"',
}


class Hung(BaseException):
    """Not an Exception: a reader that catches everything must not catch this."""


def _hung(_: int, __: FrameType | None) -> None:
    raise Hung


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """A test that waits for ever has failed."""
    before = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=ENTRY_POINTS.items(), ids=ENTRY_POINTS)
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    monkeypatch.setattr(vgg, "CHANNELS", TINY_CHANNELS)
    return request.param[1]


def opens(entry: EntryPoint, path: Path, what: str) -> bool:
    """Whether the file is opened; every other end than a clear refusal fails, and so does anything left behind."""
    before = sorted(path.parent.iterdir())
    refused: Exception | None = None
    try:
        entry.open(path)
    except Exception as error:
        refused = error
    assert sorted(path.parent.iterdir()) == before, f"{what} left files behind"
    assert refused is None or clear_error(refused, entry), f"{what}: {type(refused).__name__}: {refused}"
    return refused is None


def test_cut_off(entry: EntryPoint, tmp_path: Path) -> None:
    path = entry.make(tmp_path)
    content = path.read_bytes()
    assert opens(entry, path, "whole")
    for length in sorted({0, 1, 4, 16, len(content) // 4, len(content) // 2, len(content) - 4, len(content) - 1}):
        path.write_bytes(content[:length])
        opened = opens(entry, path, f"{length} of {len(content)} bytes")
        assert not (opened and entry.sealed)
        assert not (opened and length < 4 and not entry.blank), "an empty file"


def test_one_byte_altered(entry: EntryPoint, tmp_path: Path) -> None:
    path = entry.make(tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(len(content))
    for place in rng.choice(len(content), min(PLACES, len(content)), replace=False):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        opened = opens(entry, path, f"byte {place} altered to {altered[place]}")
        assert not (opened and entry.sealed), f"byte {place} altered to {altered[place]} was not noticed"


def test_another_kind_of_file(entry: EntryPoint, tmp_path: Path) -> None:
    path = entry.make(tmp_path)
    opened = set()
    for what, content in OTHER_FILES.items():
        path.write_bytes(content)
        if opens(entry, path, what):
            opened.add(what)
    assert opened == ({"an object"} if entry.blank else set())


def test_no_file(entry: EntryPoint, tmp_path: Path) -> None:
    path = entry.make(tmp_path)
    path.unlink()
    expected = entry.missing or entry.raises
    if not entry.optional:
        with pytest.raises(expected, match=path.name.split(".")[0]):
            entry.open(path)
    refusing = entry._replace(raises=(*expected, *entry.raises, OSError))
    path.mkdir()
    assert not opens(refusing, path, "a folder")
    path.rmdir()
    if entry.regular:
        os.mkfifo(path)
        assert not opens(refusing, path, "a pipe")


@contextmanager
def not_permitted(path: Path) -> Iterator[None]:
    """Neither the file nor, for root, its folder can be opened: root gives up its rights for that long."""
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        path.parent.chmod(0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o644)


def test_no_permission(entry: EntryPoint, tmp_path: Path) -> None:
    path = entry.make(tmp_path)
    entry.open(path)  # loads what it needs while it may
    with not_permitted(path), pytest.raises((*entry.raises, PermissionError)) as refused:
        entry.open(path)
    assert isinstance(refused.value, PermissionError) or clear_error(refused.value, entry)
    assert "ermission denied" in str(refused.value)


def test_enormous_sizes_need_no_memory() -> None:
    """In a process that has little to spare: a terabyte that is asked for fails there, and a gigabyte too."""
    assert ENORMOUS.keys() <= ENTRY_POINTS.keys()
    command = [sys.executable, "-m", "tests.hostile.enormous_files"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr[-2000:]
