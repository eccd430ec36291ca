"""The rules of the tree are tests: who imports whom, where heavy packages may stand, what is documented and typed."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = [*ROOT.glob("th_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py"), *ROOT.glob("configs/*.py")]
CODE += [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")]
ALL = [*CODE, *ROOT.glob("tests/**/*.py")]

# A package, or a module at the top level, and the ones that it may import beside itself; what only runs them all is left out.
LEAVES = {
    "th_jax.version",
    "th_jax.types",
    "th_jax.images",
    "th_jax.text",
    "th_jax.optional",
    "th_jax.parser",
    "th_jax.signals",
    "th_jax.console",
    "th_jax.processor",
}
STORED = LEAVES | {"th_jax.storage", "th_jax.landmarks"}
NETWORKS = STORED | {"th_jax.models", "th_jax.perceptual", "th_jax.losses"}
INPUT = STORED | {"th_jax.media", "th_jax.faces", "th_jax.data"}
LEARNED = NETWORKS | {"th_jax.program_cache", "th_jax.weights", "th_jax.provenance", "th_jax.render"}
ALLOWED: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "th_jax.web": set(),
    "th_jax.storage": {"th_jax.version", "th_jax.optional", "th_jax.text"},
    "th_jax.program_cache": {"th_jax.storage"},
    "th_jax.landmarks": LEAVES,
    "th_jax.losses": LEAVES,
    "th_jax.models": STORED | {"th_jax.program_cache"},
    "th_jax.perceptual": STORED | {"th_jax.models"},
    "th_jax.faces": {"th_jax.landmarks", "th_jax.optional", "th_jax.storage"},
    "th_jax.media": {"th_jax.optional", "th_jax.processor", "th_jax.storage", "th_jax.text"},
    "th_jax.data": INPUT | {"th_jax.web"},
    "th_jax.provenance": LEAVES | {"th_jax.media", "th_jax.storage"},
    "th_jax.consent": {"th_jax.media", "th_jax.provenance", "th_jax.storage", "th_jax.text"},
    "th_jax.weights": NETWORKS | {"th_jax.provenance"},
    "th_jax.render": NETWORKS | {"th_jax.program_cache", "th_jax.provenance"},
    "th_jax.figures": NETWORKS | {"th_jax.data", "th_jax.provenance"},
    "th_jax.training": LEARNED | {"th_jax.data"},
    "th_jax.evaluation": LEARNED | INPUT | {"th_jax.figures", "th_jax.training", "th_jax.web"},
    "th_jax.avatars": LEARNED | INPUT | {"th_jax.consent", "th_jax.evaluation", "th_jax.figures", "th_jax.training"},
    "th_jax.driving": LEARNED | INPUT | {"th_jax.avatars", "th_jax.consent", "th_jax.evaluation"},
    "th_jax.studio": LEARNED | INPUT | {"th_jax.avatars", "th_jax.consent", "th_jax.driving", "th_jax.training"},
    "data_prep": set(),
    "data_prep.workers": {"th_jax.media"},
    "data_prep.build": INPUT | {"data_prep.workers", "th_jax.provenance"},
    "data_prep.inspect": INPUT | {"data_prep.build", "th_jax.provenance"},
    "data_prep.forget": INPUT
    | {"data_prep.build", "th_jax.avatars", "th_jax.consent", "th_jax.provenance", "th_jax.studio"},
    "data_prep.heads": INPUT | {"data_prep.build", "data_prep.workers"},
    "data_prep.convert": STORED | {"th_jax.perceptual"},
    "data_prep.tools": INPUT
    | {f"data_prep.{part}" for part in ("build", "heads", "inspect")}
    | {"th_jax.evaluation", "th_jax.provenance"},
}

# A heavy package, and the only places that may import it.
CONTAINED: dict[str, tuple[str, ...]] = {
    "tensorflow": ("data_prep/build/shard_writer.py",),
    "dlib": ("th_jax/faces/detect.py",),
    "orbax": ("th_jax/storage/checkpoints.py",),
    "optax": ("th_jax/training",),
    "absl": ("th_jax/cli/train.py",),
    "ml_collections": ("train.py", "th_jax/cli/train.py", "configs", "benchmarks/finetune_sweep.py"),
    "flask": ("th_jax/web.py", "th_jax/evaluation/user_study/serve.py", "th_jax/data/landmark_editor/serve.py"),
    "waitress": ("th_jax/web.py",),
    "av": ("th_jax/media",),
    "ai_edge_litert": ("th_jax/evaluation/judges",),
    "c2pa": ("th_jax/provenance/c2pa_write.py",),
    "cryptography": ("th_jax/provenance/signing.py",),
    "safetensors": ("th_jax/storage/tensors.py",),
    "fsspec": ("th_jax/storage/files.py",),
    "torch": ("benchmarks",),
    "matplotlib": ("th_jax/evaluation",),
    "fastapi": ("th_jax/studio/api.py",),
    "gradio": ("th_jax/studio/page.py",),
    "onnxruntime": ("th_jax/driving/int8.py", "benchmarks"),
    "numba": ("data_prep/heads/kernels.py",),
    "apache_beam": ("data_prep/build",),
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}
BANNED_IMPORTS = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    """The most specific part of the tree that a module belongs to."""
    parts = [part for part in ALLOWED | {"th_jax": set()} if module == part or module.startswith(f"{part}.")]
    return max(parts, key=len, default=None)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return relative(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def wrong_imports(path: Path) -> Iterator[str]:
    here = part_of(module_of(path))
    if here is None or here == "th_jax":  # scripts compose everything; th_jax/__init__.py names everything
        return
    modules = {ROOT / "th_jax", ROOT / "data_prep"}
    for module in imports(path):
        there = part_of(module)
        known = any((root.parent / module.replace(".", "/")).with_suffix(".py").exists() for root in modules)
        if there is None or there == here or (there == "th_jax" and not known):
            continue
        if there not in ALLOWED[here]:
            yield f"{relative(path)} imports {module}: {here} may not import {there}"


def test_imports_follow_the_allowed_direction() -> None:
    assert [fault for path in CODE for fault in wrong_imports(path)] == []


def test_heavy_packages_stay_where_they_belong() -> None:
    packages = [(relative(path), module.split(".")[0]) for path in CODE for module in imports(path)]
    assert [
        f"{path} imports {package}"
        for path, package in packages
        if package in BANNED_IMPORTS or not path.startswith(CONTAINED.get(package, ("",)))
    ] == []


def test_no_program_calls_lapack() -> None:
    """Two threads that run jaxlib's batched decompositions may wait for each other for ever; NumPy's are used on the host."""
    decompositions = re.compile(r"\b(jnp|jax\.numpy|jax\.scipy|jax\.lax|lax|jsp)\.linalg\.(?!norm\b)")
    assert decompositions.search("factor = jax.scipy.linalg.cho_factor(normal)")
    assert not decompositions.search("size = jnp.linalg.norm(points)")
    assert [str(file) for file in (ROOT / "th_jax").rglob("*.py") if decompositions.search(file.read_text())] == []


def test_files_say_what_they_are_for() -> None:
    first_lines = {path: (ast.get_docstring(parsed(path)) or "").partition("\n")[0] for path in ALL}
    assert [relative(path) for path in ALL if path.stem in FORBIDDEN_NAMES] == []
    # Of fewer than three words, a line does not say what the file is for.
    assert [f"{relative(path)}: {first!r}" for path, first in first_lines.items() if len(first.split()) < 3] == []


def public_functions(path: Path) -> list[ast.FunctionDef]:
    """Public functions of a module and public methods of its public classes."""
    found = []
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [member for member in node.body if isinstance(member, ast.FunctionDef)]
    return [function for function in found if not function.name.startswith("_")]


def missing_of(function: ast.FunctionDef) -> Iterator[str]:
    if not ast.get_docstring(function):
        yield "has no docstring"
    arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    if untyped := [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]:
        yield f"{untyped} have no type"
    if function.returns is None:
        yield "has no return type"
    defaults = function.args.args[len(function.args.args) - len(function.args.defaults) :]
    if options := [a.arg for a in defaults if a.arg != "arguments"]:  # the argv of a command line's main
        yield f"{options} must be keyword-only"


def test_public_functions_are_typed_and_documented_and_take_options_by_keyword() -> None:
    assert [
        f"{relative(path)}:{function.lineno} {function.name}: {fault}"
        for path in CODE
        for function in public_functions(path)
        for fault in missing_of(function)
    ] == []


def test_annotations_are_checked_at_run_time() -> None:
    postponed = [relative(path) for path in CODE if "__future__" in imports(path)]
    assert postponed == [], "postponed annotations would hide shapes from the run-time check"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "tensorflow", "tensorflow_datasets", "orbax", "dlib", "cv2", "av", "torch", "grain"
    code = f"""
import sys, th_jax
for name in set(th_jax.__all__) - {{"animate", "finetune", "load_shots"}}: getattr(th_jax, name)  # those read media
print([m for m in {heavy!r} if m in sys.modules])
"""
    assert run_python(code) == "[]"


RECORDS, INPUTS = ("cv2", "jax"), ("jax", "jaxlib", "flax", "tensorflow", "dlib", "av", "PIL", "beartype")


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        *((name, RECORDS) for name in ("th_jax.consent", "th_jax.storage", "th_jax.storage.files")),
        *((name, INPUTS) for name in ("th_jax.media", "th_jax.faces")),  # which load codecs at first use
    ],
)
def test_light_packages_load_nothing_heavy(package: str, heavy: tuple[str, ...]) -> None:
    assert run_python(f"import sys, {package}\nprint([m for m in {heavy} if m in sys.modules])") == "[]"


def test_unknown_public_name_is_an_attribute_error() -> None:
    code = "import th_jax\ntry: th_jax.Avatarr\nexcept AttributeError as e: print(e)"
    assert run_python(code) == "module 'th_jax' has no attribute 'Avatarr'"


def test_every_folder_of_tests_is_searched(pytestconfig: pytest.Config) -> None:
    """pytest leaves out folders by name, such as build, without a word."""
    left_out = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("tests/**/test_*.py")}
    assert not [f for f in folders for part in f.parts if any(fnmatch(part, pattern) for pattern in left_out)]
