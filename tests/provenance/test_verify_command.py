"""`th-jax verify`: text, JSON and exit codes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import verify as main
from marked_files import flipped, here, write

from th_jax.cli import verify as command
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.provenance import Kind, Provenance, write_image, write_video
from th_jax.provenance.signing import load_signer
from th_jax.provenance.verify import verify_file
from th_jax.provenance.watermark.embed import make_mark
from th_jax.provenance.watermark.messages import mark_frames


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    real = write(tmp_path / "real.png", provenance=Provenance(kind=Kind.REAL_CROP))
    (garbage := tmp_path / "garbage.png").write_bytes(b"\0" * 100)
    paths = {
        "marked": write(tmp_path / "marked.png"),
        "not found": real,
        "altered": flipped(write(tmp_path / "altered.jpg")),
        "unreadable": garbage,
    }
    return {verdict: str(path) for verdict, path in paths.items()}


@pytest.mark.parametrize(("verdict", "code"), [("marked", 0), ("not found", 1), ("altered", 2), ("unreadable", 3)])
def test_exit_codes(files: dict[str, str], verdict: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([files[verdict]]) == code
    first, *reasons = capsys.readouterr().out.splitlines()
    assert first == f"{files[verdict]}: {verdict}"
    assert reasons
    assert all(line.startswith("  ") for line in reasons)


def test_the_worst_of_several_counts(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([files["marked"], files["not found"]]) == 1
    assert main([files["altered"], files["marked"], files["not found"]]) == 2
    assert main([files["altered"], files["unreadable"], files["marked"]]) == 3
    assert capsys.readouterr().err == ""


def test_json(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", *files.values()]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["worst"], answer["exit_code"]) == ("unreadable", 3)
    assert [one["verdict"] for one in answer["files"]] == list(files)
    assert [one["file"] for one in answer["files"]] == list(files.values())
    marked = answer["files"][0]
    assert marked["c2pa"]["intact"]
    assert marked["c2pa"]["signer"] == load_signer().name
    assert marked["record"]["matches"]
    assert answer["files"][3]["c2pa"] is None


def panels(messages: list[int]) -> list[np.ndarray]:
    """A rendered head of 64 px for each message, marked with it."""
    record = VideoRecords(bundled_heads(), "heldout").read(3)
    frames = [decode_frame(jpeg, size=FRAME_SIZE) for jpeg in record.frames[: len(messages)]]
    heads = [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames]
    marks = [make_mark(message, size=64, kind="video") for message in messages]
    return [next(mark_frames([head], mark)) for head, mark in zip(heads, marks, strict=True)]


def test_equal_messages_of_a_contact_sheet_are_one_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, again, third = panels([0xBEEF, 0xC0DE, 0xBEEF, 0xBEEF])
    sheet = np.concatenate([np.concatenate([one, other], axis=1), np.concatenate([again, third], axis=1)])
    path = write_image(tmp_path / "sheet.png", sheet, provenance=Provenance(kind=Kind.COMPOSITE, watermark="beef"))
    assert main([str(path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "watermark" in line]
    assert line.count("beef (3 times, false-positive probability 1e-") == 1
    assert line.count("c0de (false-positive probability 1e-") == 1
    assert main(["--json", str(path)]) == 0
    (found,) = (one["watermark"] for one in json.loads(capsys.readouterr().out)["files"])
    assert {group["message"]: group["count"] for group in found["messages"]} == {"beef": 3, "c0de": 1}
    places = {(round(mark["left"] / 64), round(mark["top"] / 64)): mark["message"] for mark in found["marks"]}
    assert places == {(0, 0): "beef", (1, 0): "c0de", (0, 1): "beef", (1, 1): "beef"}
    for group in found["messages"]:
        chances = [mark["log10_chance"] for mark in found["marks"] if mark["message"] == group["message"]]
        assert group["log10_chance"] == min(chances)


def test_equal_messages_of_a_paneled_video_are_one_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = np.concatenate(panels([0xBEEF, 0xBEEF]), axis=1)
    record = Provenance(kind=Kind.COMPOSITE, watermark="beef")
    path = write_video(tmp_path / "pair.mp4", [frame] * 5, fps=25, provenance=record)
    assert main([str(path)]) == 0
    assert "watermark: beef (2 times, false-positive probability 1e-" in capsys.readouterr().out


def test_trusted_roots(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (roots := tmp_path / "roots.pem").write_bytes(load_signer().certificates)
    assert main([files["marked"], "--trust", str(roots)]) == 0
    assert "(trusted)" in capsys.readouterr().out
    roots.write_text("nothing")
    assert main([files["marked"], "--trust", str(roots)]) == 5
    assert "contains no certificates in PEM" in capsys.readouterr().err


def test_without_files_or_with_unknown_options(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--colour", "a.png"], ["a.png", "--seconds", "x"]):
        assert main(arguments) == 5
        assert "usage: th-jax verify" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [-1.0, 0.0, math.nan, math.inf])
def test_invalid_seconds(seconds: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a stripped video would be reported as unmarked."""
    assert main(["video.mp4", "--seconds", str(seconds)]) == 5
    printed = capsys.readouterr()
    assert (
        printed.err == f"th-jax verify: the seconds of a video to search must be positive and finite, got {seconds}\n"
    )
    assert printed.out == ""
    with pytest.raises(ValueError, match="positive and finite"):
        verify_file("video.mp4", seconds=seconds)


def test_without_the_extra_a_hint_is_given(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "verify_file", lambda file, **options: verify_file(file, run=here, **options))
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert main([files["marked"]]) == 5
    assert "pip install 'th_jax[video]'" in capsys.readouterr().err


def test_the_process_needs_neither_jax_nor_unicode_output(files: dict[str, str], tmp_path: Path) -> None:
    odd = Path(files["marked"]).rename(tmp_path / "Übung\x1b[2J.png")
    program = """
import sys
from th_jax.cli.main import main
code = main(["verify", *sys.argv[1:]])
print("jax" in sys.modules)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(odd)], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xdcbung\\x1b[2J.png: marked" in done.stdout
    assert done.stdout.endswith(b"False\n")
