"""The report of a run: one line per person, the latest counts, incomplete lines are ignored."""

from pathlib import Path

import pytest

from th_jax.avatars.output import REPORT_FILE, Outcome, Report, read_report, summary
from th_jax.data.shots import LeftOut


def test_the_latest_outcome_counts_and_incomplete_lines_are_ignored(tmp_path: Path) -> None:
    first = Report(tmp_path / "out")
    first.add(Outcome("ada", "failed", "no face"))
    with (tmp_path / "out" / REPORT_FILE).open("ab") as file:
        file.write(b'{"name": "bo')
    second = Report(tmp_path / "out")
    left = (LeftOut("a.heic", "not read"), LeftOut("\udcff.jpg", "is damaged"))  # not every name on a disk is text
    finished = Outcome("ada", "finished", shots=8, looked_at=9, left_out=left, steps=40, digest="d" * 64)
    second.add(finished)
    assert second.outcomes == [finished]
    assert read_report(tmp_path / "out") == {"ada": second.outcomes[0]}
    with pytest.raises(FileNotFoundError):
        read_report(tmp_path)


def test_the_summary_names_the_first_failures(tmp_path: Path) -> None:
    outcomes = [Outcome("ada", "finished"), *(Outcome(f"p{n}", "failed", "no face") for n in range(7))]
    lines = summary(outcomes, skipped=2, folder=tmp_path).splitlines()
    assert lines[0] == "1 finished, 2 were already finished, 7 failed"
    assert lines[1] == "  p0: no face"
    assert lines[6] == "  and 2 more: see report.jsonl"
    assert lines[-1] == f"  all avatars are in {tmp_path}; their inputs are listed in {tmp_path}/report.jsonl"
    assert len(lines) == 9


def test_the_summary_lists_skipped_files_and_avatar_paths() -> None:
    left = tuple(LeftOut(f"{n}.heic", "not read") for n in range(22))
    few = Outcome("ada", "finished", shots=3, looked_at=6, spare=1, left_out=left[:2], avatar="out/ada.safetensors")
    assert summary([few], skipped=0, folder=Path("out")).splitlines() == [
        "1 finished",
        "  ada: out/ada.safetensors, from 3 of 6 images (1 more were usable)",
        "    skipped: 0.heic: not read",
        "    skipped: 1.heic: not read",
    ]
    many = [few._replace(name=f"p{n}", left_out=left) for n in range(7)]
    lines = summary(many, skipped=0, folder=Path("out")).splitlines()
    assert lines[22] == "    and 2 more: see report.jsonl"
    assert len(lines) == 1 + 5 * 22 + 2
    assert lines[-1] == "  44 more files were skipped: see the report"
