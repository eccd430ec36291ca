"""docs/tutorial.ipynb is a small notebook without outputs, whose code runs in order and ends with a film and its measures."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import th_jax
from th_jax.media import open_video
from th_jax.provenance import read_sidecar

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_the_notebook_is_small_and_has_no_outputs() -> None:
    content = json.loads(NOTEBOOK.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK.stat().st_size < 20_000
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    for cell in content["cells"]:
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    titles = re.findall(r"^## (.*)$", "\n".join(cells("markdown")), re.M)
    assert titles == ["Photos", "Avatar", "Film", "Measures"]


def test_its_names_exist() -> None:
    """Without running it: the attributes of th_jax, and what it imports."""
    tree = ast.parse("\n".join(cells("code")))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "th_jax"
    }
    assert used - {"__file__"} <= set(th_jax.__all__)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert len(imported) >= 4
    for node in imported:
        names: dict[str, Any] = {}
        exec(compile(ast.Module([node], []), "import", "exec"), names)  # an error if there is no such name


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in cells("code"):
        exec(compile(code, "tutorial.ipynb", "exec"), names)
    with open_video(tmp_path / "tutorial" / "film.mp4") as video:
        assert (video.size, len(list(video.frames()))) == ((128, 128), names["film"].frames)
    assert names["size"] == names["meta"].networks.image_size == 128
    assert {images.shape for images in names["made"].values()} == {names["wanted"].shape} == {(8, 128, 128, 3)}
    assert names["film"].frames == 25
    assert read_sidecar(tmp_path / "tutorial" / "film.mp4")[0].avatar == names["avatar"].digest
    assert names["origin"].verdict.value.startswith("marked") or names["origin"].seen.pixels["marks"]
    assert len(set(names["nearest"])) > 1, "the nearest shot is another one for another pose"
    assert names["ssim"]["fine-tuned"] > names["ssim"]["nearest shot"]
