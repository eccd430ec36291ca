"""What cannot be printed changes neither what a command does nor its exit code, and leaves no traceback."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from th_jax.console import check_printed, forgiving_output

ROOT = Path(__file__).parent.parent
NO_COMMANDS = ("isolation_child.py", "reference.py")
"""What is run by a program of ours, and what writes a page."""

SCRIPTS = [*ROOT.glob("th_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py"), *ROOT.glob("*.py")]
COMMANDS = sorted(p for p in SCRIPTS if 'if __name__ == "__main__"' in p.read_text() and p.name not in NO_COMMANDS)

PROGRAM = r"""
import os, sys
from pathlib import Path
from th_jax.console import forgiving_output

@forgiving_output()
def main():
    print("begun", flush=True)
    Path(sys.argv[1]).write_text("the video")
    print("zw\u00fc\udcff.mp4: written")
    print("zw\u00fc.mp4: a note", file=sys.stderr)
    print("x" * 100_000)
    return 0

if __name__ == "__main__":
    sys.exit(main())
"""


def run(tmp_path: Path, **options: object) -> tuple[int, bytes | None, bytes | None]:
    """The exit code, and the output and errors read from pipes."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    (program := tmp_path / "program.py").write_text(PROGRAM)
    # Buffered, as by default: what lies in a buffer is written once more when the interpreter ends.
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""} | (streams.pop("env", None) or {})
    command = [sys.executable, str(program), str(tmp_path / "video")]
    done = subprocess.run(command, cwd=ROOT, check=False, env=env, **streams)
    assert (tmp_path / "video").read_text() == "the video"
    return done.returncode, done.stdout, done.stderr


def closed_pipe() -> int:
    """A pipe that is not read any more."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_unsupported_characters_are_escaped(tmp_path: Path) -> None:
    code, output, errors = run(tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert code == 0
    assert b"zw\\xfc\\udcff.mp4: written" in output
    assert errors == b"zw\\xfc.mp4: a note\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_a_closed_pipe(tmp_path: Path, streams: tuple[str, ...], unbuffered: str) -> None:
    pipe = closed_pipe()
    code, output, errors = run(tmp_path, env={"PYTHONUNBUFFERED": unbuffered}, **dict.fromkeys(streams, pipe))
    os.close(pipe)
    assert code == 0
    assert not errors or errors == "zwü.mp4: a note\n".encode()
    assert not output or output.endswith(b"x\n")


def test_streams_that_are_closed_from_the_start(tmp_path: Path) -> None:
    assert run(tmp_path, preexec_fn=lambda: (os.close(1), os.close(2)))[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        code, _, errors = run(tmp_path, stdout=full)
    assert code == 0
    assert errors.decode() == "zwü.mp4: a note\ncannot write the output: [Errno 28] No space left on device\n"


def test_required_output_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError("no reader")

    with forgiving_output():
        print("fine")
        check_printed()
    monkeypatch.setattr(sys, "stdout", Gone())
    with forgiving_output(), pytest.raises(OSError, match="cannot write the output: no reader"):
        check_printed()
    monkeypatch.setattr(sys, "stdout", None)
    with forgiving_output(), pytest.raises(OSError, match="no standard output"):
        check_printed()


def test_errors_propagate_and_streams_are_restored() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError, match="a"), forgiving_output():
        raise KeyError("a")
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_forgives_its_output(path: Path) -> None:
    """Its main is decorated, or the one that it imports is."""
    mains = functions_called_main(path)
    if not mains:
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        (source,) = {node.module for node in imports if node.names[0].name == "main"}
        mains = functions_called_main((ROOT / source.replace(".", "/")).with_suffix(".py"))
    (main,) = mains
    assert [ast.unparse(decorator) for decorator in main.decorator_list] == ["forgiving_output()"]


def functions_called_main(path: Path) -> list[ast.FunctionDef]:
    body = ast.parse(path.read_text()).body
    return [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main"]
