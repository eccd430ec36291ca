"""Every ```python block of the documents is compiled and its names are looked up; `make slow-test` runs the blocks.

The blocks of a page run in order, in one namespace, as a reader types them.
"""

import ast
import builtins
import functools
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

import th_jax
from th_jax.data.episodes import decode_frame
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving.export import export_avatar
from th_jax.media import open_video
from th_jax.provenance import Kind, Provenance, read_sidecar, write_image, write_video

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

GIVEN = {
    "README.md": {"landmarks"},
    "docs/driving.md": {"landmarks", "points"},
    "docs/provenance.md": {"message", "frames", "video"},
}
"""Names that the text around a block introduces."""

NOT_RUN = {"docs/evaluation.md": ("lpips", "needs PyTorch and the authors' package, which downloads weights")}
"""Pages whose blocks are only compiled, with the module that is not installed here, and why."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)


WITH_CODE = [page for page in PAGES if blocks(page)]


class Checked(ast.NodeVisitor):
    """Looks up what a program names: modules, attributes of modules and of values of known types, names of arguments."""

    def __init__(self, given: set[str], absent: str = "") -> None:
        self.known: dict[str, Any] = dict.fromkeys(given)
        self.types: dict[str, type] = {}
        self.absent = absent

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            self.known[bound] = None
            if not self.is_absent(alias.name):
                self.known[bound] = importlib.import_module(alias.name if alias.asname else bound)
                importlib.import_module(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.module, "documents import no relative modules"
        home = importlib.import_module(node.module)
        for alias in node.names:
            assert hasattr(home, alias.name), f"{node.module} has no {alias.name}"
            self.known[alias.asname or alias.name] = getattr(home, alias.name)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.bind(target)
            if isinstance(target, ast.Name) and (made := self.type_of(node.value)):
                self.types[target.id] = made

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.bind(node.target)
        for statement in node.body:
            self.visit(statement)

    def visit_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp | ast.DictComp) -> None:
        for part in node.generators:
            self.visit(part.iter)
            self.bind(part.target)
        self.generic_visit(node)

    visit_ListComp = visit_DictComp = visit_GeneratorExp

    def visit_Name(self, node: ast.Name) -> None:
        assert node.id in self.known or hasattr(builtins, node.id), f"{node.id} is not defined"

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        self.value_of(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self.value_of(node.func)
        if called is None:
            return
        try:
            signature = inspect.signature(called)
        except (TypeError, ValueError):  # builtins
            return
        if any(isinstance(one, ast.Starred) for one in node.args) or any(word.arg is None for word in node.keywords):
            return
        owned = self.method_of(node.func)
        try:
            words = {word.arg: None for word in node.keywords if word.arg}
            signature.bind(*([None] if owned else []), *node.args, **words)
        except TypeError as error:
            raise AssertionError(f"{ast.unparse(node.func)}: {error}") from None

    def bind(self, target: ast.expr) -> None:
        """Names that are assigned, whose type is unknown."""
        for name in ast.walk(target):
            if isinstance(name, ast.Name):
                self.known[name.id] = None
                self.types.pop(name.id, None)

    def is_absent(self, module: str) -> bool:
        return bool(self.absent) and module.partition(".")[0] in (self.absent, "safetensors")

    def method_of(self, node: ast.expr) -> bool:
        """Whether this is a method of a value of a known type, whose signature begins with itself."""
        return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.types

    def value_of(self, node: ast.expr) -> Any:
        """What an expression is, if it is a module, a class or a function that was imported; else None."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        owner = self.value_of(node.value)
        if owner is None and isinstance(node.value, ast.Name):
            owner = self.types.get(node.value.id)
        if owner is None:
            return None
        where = getattr(owner, "__name__", owner)
        known = hasattr(owner, node.attr) or node.attr in getattr(owner, "__annotations__", {})
        assert known, f"{where} has no {node.attr}"
        return inspect.getattr_static(owner, node.attr, None) if inspect.isclass(owner) else getattr(owner, node.attr)

    def type_of(self, node: ast.expr) -> type | None:
        """The class that a call of a known function returns, by its annotation."""
        called = self.value_of(node.func) if isinstance(node, ast.Call) else None
        annotation = getattr(called, "__annotations__", {}).get("return")
        return annotation if inspect.isclass(annotation) and hasattr(annotation, "__annotations__") else None


def check(source: str, *, given: set[str], absent: str = "") -> None:
    Checked(given, absent).visit(ast.parse(source))


@pytest.mark.parametrize("page", WITH_CODE, ids=relative)
def test_the_programs_of_a_page_name_what_exists(page: Path) -> None:
    absent = NOT_RUN.get(relative(page), ("",))[0]
    check("\n".join(blocks(page)), given=GIVEN.get(relative(page), set()), absent=absent)


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("import th_jax\nth_jax.load_metta('heads')", "th_jax has no load_metta"),
        ("import th_jax\nth_jax.load_meta('heads', only=True)", "load_meta: got an unexpected keyword argument 'only'"),
        ("import th_jax\nth_jax.finetune('heads')", "finetune: missing a required"),
        ("from th_jax.data import load_shot", "th_jax.data has no load_shot"),
        ("import th_jax\nmeta = th_jax.load_meta('heads')\nmeta.netwoks", "MetaModel has no netwoks"),
        ("import th_jax\nada = th_jax.load_avatar('a')\nada.save()", "ada.save: missing a required argument: 'path'"),
        ("frames = avatar.render(points)", "avatar is not defined"),
    ],
)
def test_the_check_sees(program: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(fault)):
        check(program, given=set())


def test_a_program_stands_in_one_place() -> None:
    """README, which is read without the rest, may show in short what docs/tutorials/library.md explains."""
    seen: dict[str, str] = {}
    for page in WITH_CODE:
        for block in blocks(page):
            plain = re.sub(r" *#.*", "", block)
            assert plain not in seen, f"{relative(page)} repeats a block of {seen[plain]}"
            seen[plain] = relative(page)


# The folder in which a reader would run the programs.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, videos, an avatar of a rendered person, and its exported program, under the names of the documents."""
    place = tmp_path_factory.mktemp("reader")
    record, other = (VideoRecords(bundled_heads(), "heldout").read(number) for number in (0, 8))
    rendered = Provenance(kind=Kind.SYNTHETIC_RENDER)
    for name in ("photos/ada", "out/demo/people/head"):
        (place / name).mkdir(parents=True)
        for index in range(0, 64, 8):
            frame = decode_frame(record.frames[index], size=128)
            write_image(place / name / f"{index:02d}.png", frame, provenance=rendered)
    for name in ("speech.mp4", "upload.mp4", "out/demo/people/driver.mp4"):
        frames = (decode_frame(jpeg, size=128) for jpeg in other.frames[:12])
        write_video(place / name, frames, fps=25, provenance=rendered)
    meta = th_jax.load_meta("heads64", only_generate=True)
    images = np.stack([decode_frame(jpeg, size=64) for jpeg in record.frames[:8]])
    shots = th_jax.Shots(images, record.landmarks[:8], np.ones(8, np.float32))
    th_jax.finetune(meta, shots, train=False).save(place / "ada.safetensors")
    export_avatar(th_jax.load_avatar(place / "ada.safetensors"), place / "ada.stablehlo")
    return place


def given_of(page: str, folder: Path) -> dict[str, Any]:
    landmarks = VideoRecords(bundled_heads(), "heldout").read(8).landmarks[:4, :68]
    frames = jnp.full((2, 256, 256, 3), 128, jnp.uint8)
    values = {"landmarks": landmarks, "points": landmarks, "message": 5, "frames": frames}
    return {name: values[name] for name in GIVEN.get(page, ()) if name in values}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_CODE if page.name != "README.md"], ids=relative)
def test_the_programs_of_a_page_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights of 64 px and two epochs, which take seconds in place of minutes."""
    if relative(page) in NOT_RUN:
        pytest.skip(NOT_RUN[relative(page)][1])
    monkeypatch.chdir(folder)
    small_weights(monkeypatch)
    monkeypatch.setattr(th_jax, "finetune", functools.partial(th_jax.finetune, epochs=2))
    names = given_of(relative(page), folder)
    with open_video(folder / "speech.mp4") as video:
        if "video" in GIVEN.get(relative(page), ()):
            names["video"] = video
        for block in blocks(page):
            exec(compile(block, relative(page), "exec"), names)


def small_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    load = th_jax.load_meta
    monkeypatch.setattr(th_jax, "load_meta", lambda name: load({"heads": "heads64"}.get(name, name)))


@pytest.mark.slow
def test_the_program_of_the_readme_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bundled weights it takes their own preset, as finetune.py does."""
    monkeypatch.chdir(tmp_path)
    small_weights(monkeypatch)
    folder = tmp_path / "photos" / "ada"
    folder.mkdir(parents=True)
    record = VideoRecords(bundled_heads(), "heldout").read(0)
    others = tmp_path / "others"
    others.mkdir()
    for index in range(0, 64, 2):
        (others if index % 8 else folder).joinpath(f"{index}.jpg").write_bytes(bytes(record.frames[index]))
    other = th_jax.load_shots(others)  # cropped as the shots are
    frames = (decode_frame(jpeg, size=128) for jpeg in VideoRecords(bundled_heads(), "heldout").read(8).frames[:12])
    write_video("speech.mp4", frames, fps=25, provenance=Provenance(kind=Kind.SYNTHETIC_RENDER))
    names: dict[str, Any] = {"landmarks": other.landmarks[:24]}
    (program,) = blocks(ROOT / "README.md")
    exec(compile(program, "README.md", "exec"), names)
    assert names["frames"].shape == (24, 64, 64, 3)
    images = np.stack(
        [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in other.frames[:24]]
    ).astype(float)
    before = th_jax.finetune(names["meta"], names["shots"], train=False).render(names["landmarks"])
    assert np.abs(names["frames"] - images).mean() < 0.9 * np.abs(before - images).mean()
    assert names["avatar"].notes["steps"] == 40
    assert th_jax.load_avatar("ada.safetensors").digest == names["avatar"].digest
    written, untouched = read_sidecar("ada.mp4")
    assert untouched
    assert len(written.inputs) == 8


# Commands of benchmarks and tools, whose parsers are read without importing them: some need PyTorch.

COMMAND = re.compile(r"python -m ((?:benchmarks|data_prep\.tools)[\w.]*)((?: (?:\\\n *)?[^`\n]*)?)")


def module_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Name of each benchmark or tool that a page calls, with its options; a call may go on in the next line."""
    text = re.sub(r"\\\n *", "", page.read_text())
    text = re.sub(r"`[^`\n]*\n[^`\n]*`", lambda found: found[0].replace("\n", " "), text)
    for module, rest in COMMAND.findall(text):
        words = shlex.split(rest.partition("&&")[0], comments=True)
        if module == "benchmarks" and words and re.fullmatch(r"[a-z]\w*", words[0]):
            module, words = f"benchmarks.{words[0]}", words[1:]
        if module not in ("benchmarks", "benchmarks."):
            yield module, [word.partition("=")[0] for word in words if word.startswith("--")]


@functools.cache
def options_of(module: str) -> frozenset[str]:
    """Options that a module's parser has."""
    calls = ast.walk(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()))
    return frozenset(
        argument.value
        for call in calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    )


@pytest.mark.parametrize("page", [page for page in PAGES if any(module_commands(page))], ids=relative)
def test_options_of_benchmarks_exist(page: Path) -> None:
    for module, given in module_commands(page):
        unknown = set(given) - options_of(module)
        assert not unknown, f"{relative(page)}: python -m {module} has no {', '.join(sorted(unknown))}"


def test_the_check_of_benchmarks_sees() -> None:
    assert "--fit" in options_of("benchmarks.landmarks")
    assert "--fitt" not in options_of("benchmarks.landmarks")
    found = list(module_commands(ROOT / "docs" / "performance.md"))
    assert ("benchmarks.meta_scaling", ["--only"]) in found
