"""What became of people: a line each, the latest counts, a cut line harms nobody."""

from pathlib import Path

import pytest

from th_jax.enrolment.report import REPORT_FILE, Outcome, Report, read_report, summary


def test_the_latest_outcome_counts_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    first = Report(tmp_path / "out")
    first.add(Outcome("ada", "failed", "no face"))
    with (tmp_path / "out" / REPORT_FILE).open("ab") as file:
        file.write(b'{"name": "bo')
    second = Report(tmp_path / "out")
    second.add(Outcome("ada", "finished", shots=8, steps=40, digest="d" * 64))
    assert second.outcomes == [Outcome("ada", "finished", shots=8, steps=40, digest="d" * 64)]
    assert read_report(tmp_path / "out") == {"ada": second.outcomes[0]}
    with pytest.raises(FileNotFoundError):
        read_report(tmp_path)


def test_the_summary_names_the_first_who_failed() -> None:
    outcomes = [Outcome("ada", "finished"), *(Outcome(f"p{n}", "failed", "no face") for n in range(7))]
    lines = summary(outcomes, skipped=2).splitlines()
    assert lines[0] == "1 finished, 2 were finished before, 7 failed"
    assert lines[1] == "  p0: no face"
    assert lines[-1] == "  and 2 more: see report.jsonl"
    assert len(lines) == 7
