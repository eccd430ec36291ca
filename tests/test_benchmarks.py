"""The runner of the benchmarks: it lists every one with its question, and refuses unknown names."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import FOLDER, main, questions


def test_every_benchmark_is_listed_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    runs = {path.stem for path in FOLDER.glob("*.py") if "\ndef main(" in path.read_text() and path.stem != "__main__"}
    assert runs == set(questions())
    assert all(f"\n{name} " in listed and len(question) > 20 for name, question in questions().items())


def test_a_name_is_run_and_an_unknown_one_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "there is no 'nothing'" in capsys.readouterr().err
    command = [sys.executable, "-m", "benchmarks", "studio_load", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert "--clients" in done.stdout
