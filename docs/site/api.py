"""Generates docs/api.md, the list of the public names: `python -m docs.site.api > docs/api.md`."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PUBLIC = (
    *("th_jax", "th_jax.training", "th_jax.losses", "th_jax.render", "th_jax.data", "th_jax.media"),
    *("th_jax.faces", "th_jax.consent", "th_jax.provenance", "th_jax.evaluation.metrics"),
)
_HEADER = """\
# Python

The public names with the first paragraph of their docstrings; all other names are private and may change without notice. This
page is generated (`make docs`). In the built site (`make site`), each name has its arguments, shapes, results and errors, as
`help(th_jax.finetune)` prints them. Arrays are written with their shapes: `Float[Array, "B H W 3"]` is a float array of B
images of H x W pixels. Importing `th_jax` loads neither TensorFlow nor dlib.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the page as Markdown.

    Raises:
        LookupError: if a public name has no docstring.
    """
    lines = [_HEADER]
    for module in PUBLIC:
        lines += [f"## {module}", "", _summary(importlib.import_module(module).__doc__, module), ""]
        lines += ["| name | what it is |", "|---|---|"]
        for name, _ in public_names(module):
            lines.append(f"| `{module}.{name}` | {_described(module, name)} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def public_names(module: str) -> Iterator[tuple[str, str]]:
    """Yield each name of a public module, and the dotted name of its definition."""
    source = ROOT / module.replace(".", "/")
    source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    tree = ast.parse(source.read_text())
    homes: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("th_jax"):
            homes |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    exported = _exported(tree)
    names = [name for name in exported if name in homes] if exported else [n for n in own if not n.startswith("_")]
    for name in sorted(names, key=str.lower):
        yield name, homes.get(name, f"{module}.{name}")


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "_HOMES" and isinstance(node.value, ast.Dict):
                return [ast.literal_eval(key) for key in node.value.keys if key is not None]
            if (
                node.targets[0].id == "__all__"
                and isinstance(node.value, ast.List)
                and all(isinstance(item, ast.Constant) for item in node.value.elts)
            ):
                return list(ast.literal_eval(node.value))
    return []


def _described(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return _summary(value.__doc__, f"{module}.{name}")
    return f"`{type(value).__name__}`"


def _summary(docstring: str | None, what: str) -> str:
    """Return the first paragraph of a docstring on one line, escaped for a table and without names that are private."""
    if not docstring:
        raise LookupError(f"{what} has no docstring")
    text = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split()).replace("|", "\\|")
    return re.sub(r"; `th_jax\.[^`]*` [^;]*$", ".", text)


if __name__ == "__main__":
    main()
