"""Hooks of the documentation site: links to files of the checkout, and the list of public names."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT))  # MkDocs loads this file by its path
from docs.site.api import PUBLIC, public_names  # noqa: E402

OUTWARD = re.compile(r"\]\((?:\.\./)+(?!\.\./)([^)#\s]+)\)")
IFRAME_WORKER = ROOT / ".venv-docs" / "package" / "shim" / "index.js"
"""Installed by `make site`."""
_copied: dict[str, Path] = {}


def on_files(files: Files, config: Any) -> Files:
    """Add what a site needs that must not reach outside of itself: files of the checkout to which pages link, and a script."""
    # The name of a script in mkdocs.yml, which keeps the theme from loading the same one from the Internet.
    files.append(File.generated(config, "javascripts/iframe-worker.js", content=IFRAME_WORKER.read_text()))
    docs = Path(config["docs_dir"])
    for file in list(files.documentation_pages()):
        page = docs / file.src_uri
        for target in OUTWARD.findall(page.read_text() if page.is_file() else ""):
            depth = len(Path(file.src_uri).parts)
            source = ROOT / target
            if depth == 1 and source.is_file() and target not in _copied:
                _copied[target] = source
                # As text: a browser then shows it, and a Markdown file does not become a page.
                files.append(File.generated(config, f"files/{target}.txt", content=source.read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point outward links to the copies, and append the full text of the public names."""
    if len(Path(page.file.src_uri).parts) == 1:
        markdown = OUTWARD.sub(lambda found: f"](files/{found[1]}.txt)" if found[1] in _copied else found[0], markdown)
    if page.file.src_uri == "api.md":
        markdown += "\n" + "\n".join(line for module in PUBLIC for line in _names(module))
    return markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Fail for a page that would load a script, a style or an image from the Internet."""
    if found := re.search(
        r"<(?:script|img|iframe)[^>]+src=\"?https?:[^>]*>|<link[^>]+stylesheet[^>]+https?:[^>]*>", output
    ):
        raise PluginError(f"{page.file.src_uri} loads something from the Internet: {found[0]}")
    return output


def _names(module: str) -> list[str]:
    """Return the directives of one public module."""
    lines = [f"## {module}, in full", ""]
    for name, home in public_names(module):
        lines += [f"### `{module}.{name}`", "", f"::: {home}", ""]
    return lines
