"""The documents speak of code that exists, of this project alone, and link to files that are there."""

import configparser
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import th_jax.losses
from docs.site import api, settings

ROOT = Path(__file__).parent.parent
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.md")]
REFERENCE = re.compile(r"`((?:th_jax|data_prep|benchmarks)/[\w/]+\.py)::([\w.]+)`")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
COMMAND = re.compile(r"python -m ((?:th_jax|data_prep|benchmarks)[\w.]+)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCS, ids=relative)
def test_every_reference_to_code_exists(document: Path) -> None:
    for file, name in REFERENCE.findall(document.read_text()):
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        target, *attributes = name.split(".")
        assert hasattr(module, target), f"{relative(document)}: {file} has no {target}"
        owner = getattr(module, target)
        for attribute in attributes:
            known = hasattr(owner, attribute) or attribute in getattr(owner, "__annotations__", {})
            assert known, f"{relative(document)}: {file} has no {name}"


@pytest.mark.parametrize("document", DOCS, ids=relative)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), f"{relative(document)} links to {target}"


@pytest.mark.parametrize("document", DOCS, ids=relative)
def test_every_command_is_a_module(document: Path) -> None:
    for module in COMMAND.findall(document.read_text()):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{relative(document)}: {module}"


def test_the_paper_map_covers_every_loss_and_network() -> None:
    text = (ROOT / "docs" / "paper-map.md").read_text()
    for name in ("Embedder", "Generator", "AdainProjection", "Discriminator", "SelfAttention", "draw_landmarks"):
        assert f"::{name}`" in text, name
    losses = (ROOT / "th_jax" / "losses.py").read_text()
    for name in re.findall(r"^def (\w+_loss)\(", losses, re.M):
        assert f"::{name}`" in text, name


def test_the_page_of_settings_is_that_of_the_configs() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert settings.page() == page, "run `make docs`"
    assert "| `episodes.batch_size` | int | `8` | B, summed over all hosts |" in page


def test_the_page_of_public_names_is_that_of_the_docstrings() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert api.page() == page, "run `make docs`"
    assert (
        "| `th_jax.load_shots` | Load the images of one person from a photo, a folder of photos or a video. |" in page
    )


def test_a_public_name_without_docstring_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(th_jax.losses.content_loss, "__doc__", None)
    with pytest.raises(LookupError, match=r"th_jax\.losses\.content_loss has no docstring"):
        api.page()


def test_a_setting_without_description_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(settings._META_TEXTS, "log_every")
    with pytest.raises(LookupError, match="log_every has no description"):
        settings.page()


def test_the_library_tutorial_runs() -> None:
    text = (ROOT / "docs" / "tutorials" / "library.md").read_text()
    whole = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "read_videos" in block]
    names: dict[str, Any] = {}
    exec(whole[0], names)
    assert (names["frames"].shape, str(names["frames"].dtype)) == ((2, 128, 128, 3), "uint8")


def test_the_navigation_lists_every_page() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in DOCS if path.is_relative_to(ROOT / "docs")}
    assert pages == {page for page in listed if not page.startswith("results/")}


def test_the_install_section_has_every_extra_of_users() -> None:
    text = (ROOT / "docs" / "index.md").read_text().partition("## Install")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.+?) \|", text, re.M))))
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    assert listed == set(declared["options.extras_require"]) - {"dev", "oracle", "browser", "container"}


def test_the_readme_is_short() -> None:
    """People read it before anything else: 600 words, code included, link targets and table rules not."""
    text = re.sub(r"\]\([^)]*\)", "]", (ROOT / "README.md").read_text())
    assert len([word for word in text.split() if re.search("[A-Za-z]", word)]) <= 600
