"""The version stands in one module; the citation and the changelog name the same one."""

import re
from pathlib import Path

from th_jax.version import __version__

ROOT = Path(__file__).parent.parent


def test_citation_and_changelog_name_this_version() -> None:
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == __version__  # type: ignore[index]
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert titles[:2] == ["Unreleased", __version__]
    assert "version = attr: th_jax.version.__version__" in (ROOT / "setup.cfg").read_text()
