"""Text files from users: wrong encodings are reported by every reader, and text for terminals is escaped."""

from pathlib import Path

import pytest
from commands import study as user_study

from th_jax.evaluation.judges.network_input import read_input
from th_jax.evaluation.user_study.frames import INDEX_FILE, read_study_frames
from th_jax.text import escape_control_chars, read_text
from th_jax.training.presets import read_settings


def test_text_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbfM\xc3\xbcller\n", b"M\xc3\xbcller\n"):
        (tmp_path / "a.txt").write_bytes(content)
        assert read_text(tmp_path / "a.txt") == "Müller\n"


def test_settings_and_texts_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As an editor saves them in Latin-1; people, lists, landmarks and consent records are tested where they are read."""
    for name in ("net.onnx.json", INDEX_FILE, "tuning.json", "consent.txt"):
        (tmp_path / name).write_bytes('{"name":\n"Müller"}'.encode("latin-1"))
    said = r"is not valid UTF-8 \(first error in line 2\)"
    with pytest.raises(ValueError, match=said):
        read_input(tmp_path / "net.onnx", default=None)
    with pytest.raises(ValueError, match=said):
        read_study_frames(tmp_path)
    with pytest.raises(ValueError, match=said):
        read_settings(str(tmp_path / "tuning.json"))
    out = ["--out", str(tmp_path / "study")]
    assert user_study(["build", "--frames", str(tmp_path), *out, "--consent", str(tmp_path / "consent.txt")]) == 1
    assert "consent.txt is not valid UTF-8 (first error in line 2)" in capsys.readouterr().err


def test_text_for_a_terminal() -> None:
    assert escape_control_chars("zwü\x1b[2J\n\x9b\u202e\udce9") == r"zwü\x1b[2J\n\x9b\u202e\udce9"
    assert escape_control_chars("a" * 9, most=8) == "a" * 8 + "..."
