"""What no file of this project may call or switch off: whatever runs, loads or trusts more than it was given."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("th_jax", "data_prep", "configs", "benchmarks", "docs")
CODE = sorted([*(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")), *ROOT.glob("*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))

BANNED_MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    *("telnetlib", "ftplib", "xmlrpc"),
}
BANNED_CALLS = {
    *("eval", "exec", "compile", "__import__", "input"),
    *("os.system", "os.popen", "os.spawnl", "os.spawnv", "os.execv", "subprocess.getoutput", "commands.getoutput"),
    *("torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "pd.read_pickle"),
    *("tempfile.mktemp", "numpy.load_pickle", "joblib.load", "ssl._create_unverified_context"),
    *("tarfile.TarFile.extractall", "zipfile.ZipFile.extractall"),
}
UNPICKLING_METHODS = {"recv", "send"}
"""Of multiprocessing's connections; `th_jax.media.isolation` sends and receives in their place, and nothing else does."""

_NAMES = (
    "Pool",
    "Process",
    "Queue",
    "SimpleQueue",
    "JoinableQueue",
    "Manager",
    "get_context",
    "queues",
    "pool",
    "managers",
)
PICKLING = {"multiprocessing", *(f"multiprocessing.{name}" for name in (*_NAMES, "shared_memory", "dummy", "process"))}
PICKLING |= {"concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process"}
"""What starts or feeds processes by pickles; imported by any name."""

BANNED_OPTIONS = {("shell", True), ("allow_pickle", True), ("verify", False), ("trust_remote_code", True)}
NOQA = re.compile(r"#\s*noqa(?P<codes>:\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?(?P<why>.*)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def banned(source: str) -> Iterator[str]:
    """What a source does that is banned, with its line."""
    tree = ast.parse(source)
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: imports {name}" for name in modules if name.split(".")[0] in BANNED_MODULES)
            if isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (f"{node.lineno}: imports {name}, which pickles" for name in modules if _pickles(name))
        elif isinstance(node, ast.Call):
            called = _resolved(node.func, names)
            if called in BANNED_CALLS:
                yield f"{node.lineno}: calls {called}"
            if isinstance(node.func, ast.Attribute) and node.func.attr in UNPICKLING_METHODS:
                yield f"{node.lineno}: calls .{node.func.attr}, which pickles"
            if called in ("np.load", "numpy.load") and not _says(node, "allow_pickle", False):
                yield f"{node.lineno}: calls {called} without allow_pickle=False"
            for option, value in BANNED_OPTIONS:
                if any(
                    keyword.arg == option
                    and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is not value)
                    for keyword in node.keywords
                ):
                    yield f"{node.lineno}: passes {option}={value}, or what could be it"
        elif isinstance(node, ast.Attribute | ast.Name):
            mentioned = _resolved(node, names)
            if mentioned in BANNED_CALLS - {"input"}:
                yield f"{node.lineno}: mentions {mentioned}"
            if mentioned != "multiprocessing" and _pickles(mentioned):
                yield f"{node.lineno}: mentions {mentioned}, which pickles"
            if isinstance(node, ast.Attribute) and node.attr == "recv":
                yield f"{node.lineno}: mentions .recv, which unpickles"


def _pickles(name: str) -> bool:
    """Whether a name is one of `PICKLING`, or a part of one but for multiprocessing's connections."""
    return name in PICKLING or any(name.startswith(f"{known}.") for known in PICKLING - {"multiprocessing"})


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What a local name stands for: `from os import system as run` makes run os.system."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _resolved(function: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.insert(0, function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ""
    return ".".join([names.get(function.id, function.id), *parts])


def _says(call: ast.Call, option: str, value: object) -> bool:
    return any(
        keyword.arg == option and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
        for keyword in call.keywords
    )


def test_nothing_banned_is_called() -> None:
    assert [f"{relative(path)}:{fault}" for path in CODE for fault in banned(path.read_text())] == []


def test_every_file_of_the_project_is_looked_at() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:  # a copy without its history
        pytest.skip("git does not know this folder")
    unseen = set(tracked.stdout.split()) - {relative(path) for path in (*CODE, *TESTS)}
    assert not {path for path in unseen if (ROOT / path).exists()}


def test_tests_exchange_no_pickles_either() -> None:
    of_socket = ROOT / "tests/evaluation/test_user_study_serve.py"  # whose recv gives bytes
    faults = [(path, fault) for path in TESTS if path != of_socket for fault in banned(path.read_text())]
    assert [f"{relative(path)}:{fault}" for path, fault in faults if fault.endswith("pickles")] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as d",
        "eval('1')",
        "exec(text)",
        "f = eval",
        "import os\nos.system('ls')",
        "from os import system as run\nrun('ls')",
        "import subprocess as s\ns.run('ls', shell=True)",
        "import subprocess\nsubprocess.run(command, shell=shell)",
        "import torch\ntorch.load(path)",
        "from torch import load\nload(path)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy\nnumpy.load(path, allow_pickle=flag)",
        "import tempfile\ntempfile.mktemp()",
        "import requests\nrequests.get(address, verify=False)",
        "__import__('os')",
        "task = pipe.recv()",
        "answer = self._pipes[0].connection.recv()",
        "answer = pool(pipe).recv()",
        "read = pipe.recv",
        "import multiprocessing as mp\npool = mp.Pool(2)",
        "import multiprocessing.connection\nmultiprocessing.Queue()",
        "from multiprocessing import queues",
        "from multiprocessing.pool import ThreadPool",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
        "from concurrent import futures\nfutures.ProcessPoolExecutor()",
        "import concurrent.futures as f\nf.ProcessPoolExecutor(2)",
        "self.child.pipe.send(task)",
        "import multiprocessing",
        "from multiprocessing import Process as P",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
)
def test_the_ban_sees(source: str) -> None:
    assert list(banned(source))


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('a')",
        "model.eval()",
        "step.lower(x).compile()",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import json\njson.load(file)",
        "from multiprocessing import Pipe\nfrom multiprocessing.connection import wait\npipe.recv_bytes(9)",
        "from concurrent.futures import ThreadPoolExecutor",
    ],
)
def test_the_ban_leaves_alone(source: str) -> None:
    assert list(banned(source)) == []


def unexplained(source: str) -> Iterator[str]:
    """Exceptions to the linter that are too wide, or lack a reason, with their lines."""
    for number, line in enumerate(source.splitlines(), 1):
        if (found := NOQA.search(line)) is None:
            continue
        if not found["codes"]:
            yield f"{number} switches every rule off"
        elif re.search(r"\bS[0-9]", found["codes"]) and len(found["why"].strip(" -\u2013:").split()) < 3:
            yield f"{number} does not say why it is safe"
    if "ruff: noqa" in source:
        yield "1 switches rules off for the whole file"


def test_exceptions_to_the_linter_name_their_rule_and_security_ones_say_why() -> None:
    assert [f"{relative(path)}:{fault}" for path in CODE for fault in unexplained(path.read_text())] == []


def test_the_security_rules_are_on() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    selected = re.search(r"^select = \[(.*)\]$", settings, re.M)
    ignored = re.search(r"^ignore = \[(.*?)^\]", settings, re.M | re.S)
    assert selected is not None
    assert ignored is not None
    assert '"S"' in selected[1]
    assert re.findall(r'"(S[0-9]+)"', ignored[1]) == ["S101"]
    by_file = re.findall(r'^"([^"]+)" = \[(.*)\]$', settings, re.M)
    assert {files for files, rules in by_file if '"S' in rules} == {"tests/**", "benchmarks/**"}


def test_progress_bars_are_drawn_on_terminals_only() -> None:
    """A log is no place for a line that is drawn again and again: tqdm looks itself with `disable=None`."""
    paths = [path for path in CODE if "tqdm(" in path.read_text()]
    assert paths
    for path in paths:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        bars = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "tqdm"]
        assert bars, relative(path)
        for bar in bars:
            said = [ast.unparse(keyword.value) for keyword in bar.keywords if keyword.arg == "disable"]
            assert said, f"{relative(path)}:{bar.lineno}"
            assert said[0].split()[0] == "None" or said[0].endswith("or None"), f"{relative(path)}:{bar.lineno}"
