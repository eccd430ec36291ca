"""The rules of the tree are tests: who imports whom, where heavy packages may stand, how long a file may be."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = [*ROOT.glob("th_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py"), *ROOT.glob("configs/*.py")]
CODE += [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")]
ALL = [*CODE, *ROOT.glob("tests/**/*.py")]

# A part of the house, and the parts of it that may be imported there. Every part may import itself.
BASE = {
    "th_jax",
    *(f"th_jax.{name}" for name in ("version", "types", "topology", "images", "landmarks", "convolution")),
    *(f"th_jax.{name}" for name in ("addresses", "console", "leaf_names", "plain_text", "tensor_file", "whole_file")),
}
ALLOWED: dict[str, set[str]] = {
    "th_jax.version": set(),
    "th_jax.types": set(),
    "th_jax.topology": set(),
    "th_jax.images": set(),
    "th_jax.convolution": set(),
    "th_jax.landmarks": {"th_jax.topology"},
    "th_jax.addresses": set(),
    "th_jax.console": set(),
    "th_jax.leaf_names": set(),
    "th_jax.plain_text": set(),
    "th_jax.whole_file": set(),
    "th_jax.tensor_file": {"th_jax.version"},
    "th_jax.models": BASE,
    "th_jax.perceptual": BASE,
    "th_jax.losses": BASE,
    "th_jax.data": BASE | {"th_jax.faces", "th_jax.media", "th_jax.retargeting"},
    "th_jax.faces": {"th_jax.topology", "th_jax.media"},
    "th_jax.media": {"th_jax", "th_jax.version", "th_jax.watermark"},
    "th_jax.watermark": {"th_jax.images", "th_jax.types"},
    "th_jax.verify": {"th_jax.console", "th_jax.media", "th_jax.watermark"},
    "th_jax.sharding": {"th_jax.leaf_names"},
    "th_jax.interruption": set(),
    "th_jax.memory": set(),
    "th_jax.training": BASE | {"th_jax.models", "th_jax.perceptual", "th_jax.losses", "th_jax.sharding"},
    "th_jax.checkpoint_description": {"th_jax.version", "th_jax.leaf_names"},
    "th_jax.checkpoint_backend": set(),
    "th_jax.checkpoints": {"th_jax.version", "th_jax.checkpoint_backend", "th_jax.checkpoint_description"},
    "th_jax.run_files": {"th_jax.addresses", "th_jax.whole_file"},
    "th_jax.run_log": {"th_jax.addresses", "th_jax.media", "th_jax.version", "th_jax.run_files"},
    "th_jax.pretrained": BASE | {"th_jax.models", "th_jax.perceptual", "th_jax.checkpoints", "th_jax.media"},
    "th_jax.quantization": set(),
    "th_jax.avatar_format": BASE | {"th_jax.models", "th_jax.perceptual"},
    "th_jax.avatars": BASE | {
        "th_jax.models", "th_jax.perceptual", "th_jax.pretrained", "th_jax.media", "th_jax.avatar_format",
        "th_jax.quantization",
    },
    "th_jax.compaction": BASE | {
        "th_jax.models", "th_jax.pretrained", "th_jax.media", "th_jax.avatar_format", "th_jax.avatars", "th_jax.quantization",
    },
    "th_jax.retargeting": {"th_jax.topology"},
    "th_jax.enrolment": BASE | {
        "th_jax.models", "th_jax.data", "th_jax.media", "th_jax.losses", "th_jax.training", "th_jax.rendering",
        "th_jax.evaluation", "th_jax.evaluation.metrics", "th_jax.pretrained", "th_jax.avatars", "th_jax.avatar_format",
        "th_jax.compaction", "th_jax.quantization", "th_jax.consent", "th_jax.consent_checks", "th_jax.consent_record",
        "th_jax.watermark",
    },
    "th_jax.dry_run": BASE | {"th_jax.models", "th_jax.perceptual", "th_jax.data", "th_jax.sharding", "th_jax.training"},
    "th_jax.release": {
        "th_jax.console", "th_jax.models", "th_jax.checkpoints", "th_jax.data", "th_jax.pretrained", "th_jax.run_files",
    },
    "th_jax.meta_run": BASE | {
        "th_jax.models", "th_jax.perceptual", "th_jax.data", "th_jax.sharding", "th_jax.training", "th_jax.checkpoints",
        "th_jax.pretrained", "th_jax.run_log",
    },
    "th_jax.evaluation.metrics": set(),
    "th_jax.evaluation": BASE | {
        "th_jax.evaluation.metrics", "th_jax.models", "th_jax.perceptual", "th_jax.data", "th_jax.faces", "th_jax.rendering",
        "th_jax.losses", "th_jax.media", "th_jax.run_log", "th_jax.watermark",
    },
    "th_jax.evaluation.protocol": BASE | {
        "th_jax.evaluation", "th_jax.evaluation.metrics", "th_jax.models", "th_jax.perceptual", "th_jax.data", "th_jax.faces",
        "th_jax.rendering", "th_jax.losses", "th_jax.media", "th_jax.training", "th_jax.pretrained", "th_jax.interruption",
        "th_jax.run_files", "th_jax.sharding", "th_jax.retargeting",
    },
    "th_jax.rendering": BASE | {
        "th_jax.models", "th_jax.data", "th_jax.faces", "th_jax.media", "th_jax.perceptual", "th_jax.avatars",
        "th_jax.retargeting", "th_jax.consent", "th_jax.consent_checks", "th_jax.watermark", "th_jax.interruption",
        "th_jax.memory",
    },
    "th_jax.consent_record": {"th_jax.media", "th_jax.plain_text", "th_jax.whole_file"},
    "th_jax.consent_checks": {"th_jax.consent_record", "th_jax.media"},
    "th_jax.consent": {
        "th_jax.console", "th_jax.consent_checks", "th_jax.consent_record", "th_jax.media", "th_jax.whole_file",
    },
    "data_prep": {
        "th_jax", "th_jax.version", "th_jax.data", "th_jax.topology", "th_jax.faces", "th_jax.media", "th_jax.perceptual",
        "th_jax.avatar_format", "th_jax.consent", "th_jax.consent_record", "th_jax.plain_text", "th_jax.whole_file",
        "th_jax.console",
    },
}  # fmt: skip

# A heavy package, and the only places that may import it.
CONTAINED: dict[str, tuple[str, ...]] = {
    "tensorflow": ("data_prep",),
    "dlib": ("th_jax/faces/detect.py",),
    "orbax": ("th_jax/checkpoint_backend.py",),
    "optax": ("th_jax/training",),
    "absl": ("train.py", "finetune.py", "configs"),
    "ml_collections": ("train.py", "finetune.py", "configs", "benchmarks/finetune_sweep.py"),
    "flask": ("th_jax/evaluation/user_study/serve.py",),
    "waitress": ("th_jax/evaluation/user_study/serve.py",),
    "av": ("th_jax/media",),
    "ai_edge_litert": ("th_jax/evaluation/networks",),
    "c2pa": ("th_jax/media/content_credentials.py",),
    "cryptography": ("th_jax/media/signing.py",),
    "safetensors": ("th_jax/tensor_file.py",),
    "fsspec": ("th_jax/addresses.py", "data_prep/transfer.py"),
    "torch": ("benchmarks",),
    "matplotlib": ("th_jax/evaluation",),
    "numba": ("data_prep",),
    "apache_beam": ("data_prep",),
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
    """The longest part of the house that a module belongs to."""
    parts = [part for part in ALLOWED | {"th_jax": set()} if module == part or module.startswith(f"{part}.")]
    return max(parts, key=len, default=None)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return relative(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_imports_follow_the_house(path: Path) -> None:
    here = part_of(module_of(path))
    if here is None or here == "th_jax":  # scripts compose everything; th_jax/__init__.py names everything
        return
    modules = {ROOT / "th_jax", ROOT / "data_prep"}
    for module in imports(path):
        there = part_of(module)
        known = any((root.parent / module.replace(".", "/")).with_suffix(".py").exists() for root in modules)
        if there is None or there == here or (there == "th_jax" and not known):
            continue
        assert there in ALLOWED[here], f"{relative(path)} imports {module}: {here} may not import {there}"


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    for module in imports(path):
        package = module.split(".")[0]
        places = CONTAINED.get(package)
        assert places is None or relative(path).startswith(places), f"{relative(path)} imports {package}"
        assert package not in BANNED_IMPORTS, f"{relative(path)} imports {package}"


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_files_say_what_they_are_for(path: Path) -> None:
    assert path.stem not in FORBIDDEN_NAMES
    docstring = ast.get_docstring(parsed(path))
    assert docstring, f"{relative(path)} has no docstring"
    first = docstring.splitlines()[0]
    assert len(first.split()) >= 3, f"{relative(path)}: {first!r} does not say what the file is for"


def public_functions(path: Path) -> list[ast.FunctionDef]:
    """Public functions of a module and public methods of its public classes."""
    found = []
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [member for member in node.body if isinstance(member, ast.FunctionDef)]
    return [function for function in found if not function.name.startswith("_")]


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_public_functions_are_typed_and_documented(path: Path) -> None:
    for function in public_functions(path):
        where = f"{relative(path)}:{function.lineno} {function.name}"
        assert ast.get_docstring(function), f"{where} has no docstring"
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not untyped, f"{where}: {untyped} have no type"
        assert function.returns is not None, f"{where} has no return type"


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_options_are_keyword_only(path: Path) -> None:
    for function in public_functions(path):
        defaults = function.args.args[len(function.args.args) - len(function.args.defaults) :]
        options = [a.arg for a in defaults if a.arg != "arguments"]  # the argv of a command line's main
        assert not options, f"{relative(path)}:{function.lineno} {function.name}: {options} must be keyword-only"


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_annotations_are_checked_at_run_time(path: Path) -> None:
    assert "__future__" not in imports(path), "postponed annotations would hide shapes from the run-time check"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "tensorflow", "tensorflow_datasets", "orbax", "dlib", "cv2", "av", "torch", "grain"
    code = f"""
import sys, th_jax
for name in th_jax.__all__: getattr(th_jax, name)
print([m for m in {heavy!r} if m in sys.modules])
"""
    assert run_python(code) == "[]"


def test_unknown_public_name_is_an_attribute_error() -> None:
    code = "import th_jax\ntry: th_jax.Avatarr\nexcept AttributeError as e: print(e)"
    assert run_python(code) == "module 'th_jax' has no attribute 'Avatarr'"
