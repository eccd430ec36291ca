"""README, documents and the scripts beside them use only public names of the package, and each of these exists."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from th_jax.storage.checkpoint_format import FORMAT

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.md")]
    if path.name not in ("design.md", "paper-map.md")
]
SCRIPTS = [ROOT / "demo.py", ROOT / "finetune.py"]

PUBLIC = {
    *("th_jax", "th_jax.training", "th_jax.losses", "th_jax.render", "th_jax.evaluation.metrics"),
    *("th_jax.data", "th_jax.media", "th_jax.faces", "th_jax.consent", "th_jax.provenance"),
    *("th_jax.media.isolation", "th_jax.provenance.verify"),
    *("th_jax.provenance.watermark.embed", "th_jax.provenance.watermark.detect"),
}
"""Modules whose names are public, as docs/design.md lists them."""

NAMED = re.compile(r"(?<![\w./-])th_jax(?:\.\w+)+(?![\w/])")
IMPORT = re.compile(r"^\s*from (th_jax[\w.]*) import (.+)$", re.M)


def is_public(name: str) -> bool:
    """Whether a dotted name is a public module, or a public name of one; attributes of such a name are not looked up."""
    if name in PUBLIC:
        return True
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module, attribute = ".".join(parts[:end]), parts[end]
        if module in PUBLIC:
            home = importlib.import_module(module)
            names = getattr(home, "__all__", None) or [known for known in vars(home) if not known.startswith("_")]
            return attribute in names or (attribute.endswith("_") and any(x.startswith(attribute) for x in names))
    return False


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_public_names(path: Path) -> None:
    text = path.read_text()
    names = {
        name for name in NAMED.findall(text) if name not in {FORMAT, *(module for module, _ in IMPORT.findall(text))}
    }
    for module, imported in IMPORT.findall(text):
        names |= {f"{module}.{name.split(' as ')[0].strip()}" for name in imported.split("#")[0].split(",")}
    private = sorted(name for name in names if not is_public(name) and not name.startswith("th_jax.cli"))
    assert not private, f"{path.name} names {private}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_call_the_command_alone(path: Path) -> None:
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom | ast.Import)]
    assert [ast.unparse(node) for node in found] == ["import sys", "from th_jax.cli.main import main"]


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("th_jax.load_meta", True),
        ("th_jax.training.make_finetune_chunk", True),
        ("th_jax.render.generate_frames", True),
        ("th_jax.provenance.write_", True),
        ("th_jax.load_metta", False),
        ("th_jax.training.meta_step", False),
        ("th_jax.training.state.TrainState", False),
        ("th_jax.data.shots.inspect_shots", False),
        ("th_jax.faces.follow", False),
        ("th_jax.storage.files", False),
        ("th_jax.media.isolation._restored", False),
    ],
)
def test_the_check_sees(name: str, public: bool) -> None:
    assert is_public(name) == public
