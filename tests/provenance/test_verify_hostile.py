"""Verification of hostile files: always a verdict, no crash or hang, and no trust in declared sizes."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from marked_files import NAMES, here, write

from tests.media.signed_files import image
from th_jax.media import MediaError, MediaFault
from th_jax.provenance import verify as file_module
from th_jax.provenance.c2pa_read import read_manifests
from th_jax.provenance.verify import Verdict, verify_file


def may_change_unnoticed(content: bytes) -> range:
    """The manifest's location: it has padding and lengths that no signature covers; in MP4 a file type precedes it."""
    start = content.index(b"jumb") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    return range(0 if content[4:8] == b"ftyp" else start - 32, start + length + length // 255 + 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_random_alterations_are_noticed_and_never_crash_it(tmp_path: Path, name: str, count: int) -> None:
    original = write(tmp_path / name).read_bytes()
    random, excused = np.random.default_rng(0), may_change_unnoticed(original)
    (tmp_path / "altered").mkdir()
    path = tmp_path / "altered" / name
    outside = 0
    for _ in range(count):
        place, content = int(random.integers(len(original))), bytearray(original)
        content[place] ^= 1 << random.integers(8)
        path.write_bytes(content)
        verdict = verify_file(path, run=here).verdict
        if place not in excused:
            outside += 1
            assert verdict is Verdict.ALTERED, place
    assert outside > count // 5


@pytest.mark.parametrize("name", NAMES)
def test_truncated_at_every_tenth(tmp_path: Path, name: str) -> None:
    original = write(tmp_path / name).read_bytes()
    (tmp_path / "cut").mkdir()
    path = tmp_path / "cut" / name
    for tenth in range(1, 10):
        path.write_bytes(original[: len(original) * tenth // 10])
        assert verify_file(path, run=here).verdict in (Verdict.ALTERED, Verdict.UNREADABLE, Verdict.NOT_FOUND)


def test_garbage_is_unreadable_whatever_it_is_called(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    heads = {
        "png": b"\x89PNG\r\n\x1a\n",
        "jpg": b"\xff\xd8\xff\xe0",
        "gif": b"GIF89a",
        "mp4": struct.pack(">I", 24) + b"ftypisom",
        "html": b"<p>",
        "c2pa": b"\0\0\0\x20jumb",
    }
    for ending, head in heads.items():
        for start in (b"", head):
            path = tmp_path / f"a.{ending}"
            path.write_bytes(start + random.bytes(2000))
            report = verify_file(path, run=here)
            assert report.verdict is Verdict.UNREADABLE
            assert "is neither a decodable image nor a decodable video" in report.lines[1]


def test_no_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for path, words in (
        (tmp_path / "empty.png", "is empty"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "pipe.mp4", "is a device or pipe"),
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path / "loop.png", "cannot be read"),
        (Path("/dev/zero"), "is a device or pipe"),
        ("http://example.org/a.png", "looks like a URL"),
        ("a\0b", "cannot be read"),
        ("\x1b[2J", r"\x1b[2J does not exist"),
    ):
        report = verify_file(path)
        assert report.verdict is Verdict.UNREADABLE
        assert words in report.lines[0]
        assert "\x1b" not in report.lines[0]


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    report = verify_file(path, run=here)
    assert report.verdict is Verdict.UNREADABLE
    assert "Permission denied" in report.lines[0]


def test_enormous_declared_sizes_are_rejected_before_allocation(tmp_path: Path) -> None:
    plain = cv2.imencode(".png", image())[1].tobytes()
    wide = plain[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + plain[24:]
    manifest = struct.pack(">I4s", 2**31 - 1, b"caBX")
    box = struct.pack(">I4sQ", 1, b"mdat", 2**62)
    jumbf = struct.pack(">I4sI4s", 2**31, b"jumb", 25, b"jumd") + bytes.fromhex("63327061001100108000 00aa00389b71")
    video = write(tmp_path / "a.mp4").read_bytes()
    cases = {
        "wide.png": wide,
        "chunk.png": plain[:33] + manifest + jumbf + plain[33:],
        "box.mp4": video[:32] + box,
        "jumbf.png": plain[:33] + struct.pack(">I", len(jumbf)) + b"caBX" + jumbf + bytes(4) + plain[33:],
        "uuid.mp4": struct.pack(">I4s", 24, b"ftyp") + b"isom" + bytes(12) + struct.pack(">I4s", 2**32 - 1, b"uuid"),
    }
    small = file_module.PROCESS_LIMITS._replace(memory=2 * 2**30, seconds=60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_module, "PROCESS_LIMITS", small)
        for name, content in cases.items():
            (tmp_path / name).write_bytes(content)
            assert verify_file(tmp_path / name).verdict in (Verdict.UNREADABLE, Verdict.ALTERED), name


def test_a_file_over_the_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(65 * 2**30)  # a hole: it takes no room on the disk
    report = verify_file(path)
    assert report.verdict is Verdict.UNREADABLE
    assert "over the limit" in report.lines[0]


def test_a_check_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    with path.open("wb") as file:
        file.write(write(tmp_path / "b.mp4").read_bytes())
        file.write(struct.pack(">I4sQ", 1, b"mdat", 2**35))
        file.truncate(2**35)
    monkeypatch.setattr(file_module, "PROCESS_LIMITS", file_module.PROCESS_LIMITS._replace(seconds=0.5))
    report = verify_file(path)
    assert report.verdict is Verdict.UNREADABLE
    assert "takes longer than 0.5 s" in report.lines[0]


def test_the_reader_rejects_non_files(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as refused:
        read_manifests(str(tmp_path))
    assert refused.value.fault is MediaFault.UNSUPPORTED


def test_invalid_trust_anchors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    report = verify_file(path, trust_anchors="-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n", run=here)
    assert report.verdict is Verdict.UNREADABLE
    assert "invalid trust certificates" in report.lines[0]
