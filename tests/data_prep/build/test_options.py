"""Options say what is wrong with them; without Apache Beam its program says what to install."""

import argparse
import sys

import pytest

from data_prep.build.options import add_options, chosen
from data_prep.build.quality import Thresholds
from tests import commands
from th_jax.optional import install_command


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return chosen(parser.parse_args(arguments))


def test_thresholds_are_set_by_their_names():
    settings = options("--threshold", "face=30", "--threshold", "points_outside=2", "--min-frames", "5").settings
    assert settings.thresholds == Thresholds(face=30.0, points_outside=2, frames=5)
    assert options().settings.thresholds == Thresholds()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smile=1", "unknown threshold 'smile'"),
        ("frames=3", "unknown threshold 'frames'"),
        ("face", "the threshold face must be a number, but is ''"),
        ("points_outside=2.5", r"the threshold points_outside must be a number, but is '2\.5'"),
    ],
)
def test_other_thresholds_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        options("--threshold", text)


def test_limits_of_a_video():
    limits = options("--video-seconds", "60", "--video-memory", "2").limits
    assert (limits.seconds, limits.memory) == (60.0, 2 * 2**30)


def test_lists_are_read(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\ufeffada\n\n  bob \n", encoding="utf-8")
    assert options("--takedown", str(names)).selection.takedown == {"ada", "bob"}
    assert options("--heldout", str(names)).selection.heldout_people == {"ada", "bob"}
    names.write_text("\n")
    with pytest.raises(ValueError, match=r"names\.txt contains no names"):
        options("--takedown", str(names))
    names.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"names\.txt is not valid UTF-8"):
        options("--takedown", str(names))


def test_an_absent_beam_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert commands.beam(["--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert f"needs Apache Beam: {install_command('beam')}" in capsys.readouterr().err
