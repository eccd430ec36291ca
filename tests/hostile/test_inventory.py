"""No file is opened anywhere in the code that this inventory does not know."""

import ast
from pathlib import Path

from tests.hostile.entry_points import ENTRY_POINTS
from tests.hostile.inventory import MODULES, NOT_HOSTILE, TESTED_ELSEWHERE

ROOT = Path(__file__).parent.parent.parent
CODE = [*ROOT.glob("th_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py"), *ROOT.glob("configs/*.py"), *ROOT.glob("*.py")]

OPENING = {
    *("open", "fdopen", "read_bytes", "read_text", "load", "safe_open", "fromfile", "memmap", "mmap", "loadmat"),
    *("imdecode", "imread", "VideoCapture", "ZipFile", "TarFile", "File", "FromString", "ParseFromString", "get_data"),
    *(
        "read_json",
        "read_file",
        "read_range",
        "read_whole",
        "cat_file",
        "loadtxt",
        "genfromtxt",
        "urlopen",
        "deserialize",
    ),
    *("from_file", "from_stream", "Reader", "restore", "open_container"),
}
"""Names of functions and methods that read a file, or parse what stood in one."""


def opening_calls(source: str) -> set[str]:
    """The calls of a source that open something, as they are written; those on `self` are its own methods."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            own = isinstance(called, ast.Attribute) and ast.unparse(called.value) in ("self", "evaluation")
            if name in OPENING and not own:
                found.add(ast.unparse(called))
    return found


def test_every_module_that_opens_files_is_listed() -> None:
    opening = {path.relative_to(ROOT).as_posix(): opening_calls(path.read_text()) for path in CODE}
    opening = {path: calls for path, calls in opening.items() if calls}
    unknown = {path: calls for path, calls in opening.items() if path not in MODULES}
    assert not unknown, f"say in tests/hostile/inventory.py what these open, and test it: {unknown}"
    idle = sorted(set(MODULES) - set(opening))
    assert not idle, f"these open nothing any more: {idle}"


def test_every_module_says_where_its_files_are_tested() -> None:
    for module, answers in MODULES.items():
        for answer in answers:
            known = answer in ENTRY_POINTS or answer in NOT_HOSTILE or answer in TESTED_ELSEWHERE
            assert known, f"{module}: {answer!r} is not an answer of the inventory"
    answered = {answer for answers in MODULES.values() for answer in answers}
    assert set(ENTRY_POINTS) | set(NOT_HOSTILE) | set(TESTED_ELSEWHERE) == answered
    for tests in TESTED_ELSEWHERE.values():
        for test in tests:
            assert (ROOT / test).is_file(), test


def test_the_inventory_sees() -> None:
    source = "import cv2\nwith open(a) as f: f.read()\ncv2.imdecode(b, 1)\nPath(c).read_bytes()\nself.open()\nprint(d)"
    assert opening_calls(source) == {"open", "cv2.imdecode", "Path(c).read_bytes"}
