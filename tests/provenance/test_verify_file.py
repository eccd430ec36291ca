"""Verification of marked, unmarked, stripped and modified files, with reasons."""

import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from marked_files import GENERATED, NAMES, Findings, Mark, flipped, here, marks_in, write

from tests.media.signed_files import image
from th_jax.media import MediaError, MediaFault
from th_jax.provenance import Kind, Person, Provenance, sidecar_path, write_image
from th_jax.provenance import verify as looks_module
from th_jax.provenance.c2pa_write import SOURCE_TYPES, c2pa, offline_context
from th_jax.provenance.signing import load_signer
from th_jax.provenance.verify import FileReport, Verdict, verify_file


def alone(path: Path, folder: Path) -> Path:
    """A copy without its provenance record."""
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(path, folder / path.name))


def reasons(report: FileReport) -> str:
    return "\n".join(report.lines)


@pytest.mark.parametrize("name", NAMES)
def test_written_files_are_marked(tmp_path: Path, name: str) -> None:
    report = verify_file(write(tmp_path / name))
    assert report.verdict is Verdict.MARKED
    assert f'C2PA: intact; signed by "{load_signer().name}" (not verified' in reasons(report)
    assert "provenance record: matches the file; generated" in reasons(report)
    assert report.seen.manifest["source_types"] == ("compositeWithTrainedAlgorithmicMedia",)
    assert report.seen.manifest["provenance"]["consent"] == "no consent recorded"
    json.dumps(report.to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_alone_is_enough(tmp_path: Path, name: str) -> None:
    report = verify_file(alone(write(tmp_path / name), tmp_path / "copy"), run=here)
    assert report.verdict is Verdict.MARKED
    assert report.seen.sidecar is None


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_altered(tmp_path: Path, name: str) -> None:
    report = verify_file(flipped(alone(write(tmp_path / name), tmp_path / "copy")))
    assert report.verdict is Verdict.ALTERED
    assert "Hash.mismatch" in reasons(report)


def test_a_manifest_on_another_image_is_altered(tmp_path: Path) -> None:
    """The manifest's chunk, moved into another image."""
    marked, plain = write(tmp_path / "a.png").read_bytes(), tmp_path / "b.png"
    start = marked.index(b"caBX") - 4
    chunk = marked[start : start + 12 + int.from_bytes(marked[start : start + 4], "big")]
    other = cv2.imencode(".png", image(seed=9))[1].tobytes()
    plain.write_bytes(other[:33] + chunk + other[33:])
    assert verify_file(plain, run=here).verdict is Verdict.ALTERED


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_resaved_image_has_no_manifest(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    (again := tmp_path / f"again{path.suffix}").touch()
    cv2.imwrite(str(again), cv2.imread(str(path)))
    report = verify_file(again)
    assert (report.verdict, report.seen.manifest) == (Verdict.NOT_FOUND, None)
    shutil.copy(again, path)
    report = verify_file(path)  # which leaves the record beside it
    assert report.verdict is Verdict.ALTERED
    assert "provenance record: does not match the file" in reasons(report)


def test_a_watermark_without_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "detectors", marks_in)
    for name in ("b.unmarked.png", "b.unmarked.mp4"):
        path = alone(write(tmp_path / name, unmarked_for_research=True), tmp_path / "copy")
        report = verify_file(path, run=here)
        assert report.verdict is Verdict.STRIPPED
        assert "watermark: 00af (false-positive probability 1e-12)" in reasons(report)
        place = {"left": 0.0, "top": 0.0, "side": 64.0}
        assert report.seen.pixels["marks"] == [{"message": "00af", "log10_chance": -12.3, "doubt": 0.0, **place}]
    assert verify_file(write(tmp_path / "a.png"), run=here).verdict is Verdict.MARKED
    altered = verify_file(flipped(write(tmp_path / "a.mp4")), run=here)
    assert altered.verdict is Verdict.ALTERED
    assert "watermark: 00af" in reasons(altered)


def test_a_barely_readable_message_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Findings((Mark(doubt=0.3123456789), Mark(doubt=0.7, left=99.0), Mark(message=1, doubt=1e-4, left=200.0)))
    monkeypatch.setattr(looks_module, "detectors", lambda: (lambda frame: found, lambda frames: found))
    report = verify_file(write(tmp_path / "a.png"), run=here)
    line = next(line for line in report.lines if line.startswith("watermark"))
    assert "00af (2 times, false-positive probability 1e-12; barely readable: wrong with a probability of 31%)" in line
    assert "0001 (false-positive probability 1e-12)" in line
    assert [group["doubt"] for group in report.to_dict()["watermark"]["messages"]] == [0.312346, 0.0001]


def test_a_video_is_searched_for_the_given_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def video(frames):
        counted.append(len(list(frames)))
        return Findings()

    monkeypatch.setattr(looks_module, "detectors", lambda: (lambda frame: Findings(), video))
    path = write(tmp_path / "a.mp4")
    assert "watermark: none found" in reasons(verify_file(path, run=here))
    verify_file(path, run=here, seconds=0.05)
    assert counted == [3, 2]


def test_a_missing_detector_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "detectors", lambda: None)
    report = verify_file(write(tmp_path / "a.png"), run=here)
    assert report.verdict is Verdict.MARKED
    assert "watermark: not checked" in report.lines


def test_unmarked_for_research_is_not_found_with_the_reason(tmp_path: Path) -> None:
    report = verify_file(write(tmp_path / "a.unmarked.png", unmarked_for_research=True), run=here)
    assert report.verdict is Verdict.NOT_FOUND
    assert "provenance record: matches the file; generated, written without marks for research" in reasons(report)


@pytest.mark.parametrize("kind", [Kind.REAL_CROP, Kind.FIGURE, Kind.TRAINING_GRID])
def test_a_record_of_real_content_is_no_mark(tmp_path: Path, kind: Kind) -> None:
    report = verify_file(write(tmp_path / "a.png", provenance=Provenance(kind=kind)), run=here)
    assert report.verdict is Verdict.NOT_FOUND
    assert f"provenance record: matches the file; {kind}" in reasons(report)


@pytest.mark.parametrize("content", ["{", "[]", '{"provenance": 7}', "x" * 2_000_000])
def test_a_broken_record_is_reported_and_ignored(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.png")
    sidecar_path(path).write_text(content)
    report = verify_file(path, run=here)
    assert report.verdict is Verdict.MARKED
    assert "provenance record: cannot be read" in reasons(report)


def other_makers_image(path: Path, *, term: str, remote: bool = False) -> Path:
    """An image with another program's manifest that states its source type."""
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE_TYPES + term}]}
    says = {
        "claim_generator_info": [{"name": "\x1b[31mCamera", "version": "3"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": actions}],
    }
    signer = load_signer()
    key = c2pa().C2paSignerInfo(signer.algorithm, signer.certificates, signer.key, None)
    plain = io.BytesIO(cv2.imencode(".png", image())[1].tobytes())
    with (
        offline_context() as context,
        c2pa().Signer.from_info(key) as signing,
        c2pa().Builder(says, context) as builder,
        path.open("w+b") as file,
    ):
        if remote:
            builder.set_no_embed()
            builder.set_remote_url("http://127.0.0.1:9/manifest")
        builder.sign(signing, "image/png", plain, file)
    return path


def test_a_camera_s_manifest_is_no_mark_of_a_machine(tmp_path: Path) -> None:
    report = verify_file(other_makers_image(tmp_path / "a.png", term="digitalCapture"), run=here)
    assert report.verdict is Verdict.NOT_FOUND
    assert r"made with \x1b[31mCamera 3: digitalCapture; it declares no machine-generated content" in reasons(report)


def test_another_generator_s_manifest_is_one(tmp_path: Path) -> None:
    report = verify_file(other_makers_image(tmp_path / "a.png", term="trainedAlgorithmicMedia"), run=here)
    assert report.verdict is Verdict.MARKED
    assert report.seen.manifest["provenance"] is None


def test_a_remote_manifest_is_not_fetched(tmp_path: Path) -> None:
    path = other_makers_image(tmp_path / "a.png", term="trainedAlgorithmicMedia", remote=True)
    report = verify_file(path, run=here)
    assert report.verdict is Verdict.NOT_FOUND
    assert "C2PA: the manifest is stored remotely and was not fetched" in report.lines


def test_a_trusted_root(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    root = "-----BEGIN" + load_signer().certificates.decode().split("-----BEGIN")[2]
    report = verify_file(path, trust_anchors=root, run=here)
    assert report.seen.manifest["trusted"]
    assert f'signed by "{load_signer().name}" (trusted)' in reasons(report)


def test_rendered_heads_and_synthetic_people(tmp_path: Path) -> None:
    for record, term in (
        (Provenance(kind=Kind.SYNTHETIC_RENDER), "algorithmicMedia"),
        (Provenance(kind=Kind.GENERATED, person=Person.SYNTHETIC), "trainedAlgorithmicMedia"),
    ):
        report = verify_file(write(tmp_path / "a.png", provenance=record), run=here)
        assert report.verdict is Verdict.MARKED
        assert report.seen.manifest["source_types"] == (term,)


def test_a_wrong_ending_changes_nothing(tmp_path: Path) -> None:
    for name, ending in (("a.mp4", ".png"), ("a.png", ".mp4"), ("a.jpg", ".txt")):
        path = write(tmp_path / name)
        report = verify_file(path.rename(tmp_path / f"other{ending}"), run=here)
        assert (report.verdict, report.seen.pixels_fault) == (Verdict.MARKED, None)


def test_a_crashed_check_is_unreadable(tmp_path: Path) -> None:
    def dies(function, *arguments, **options):
        raise MediaError(MediaFault.UNDECODABLE, "the process that read it crashed (SIGABRT)")

    report = verify_file(write(tmp_path / "a.png"), run=dies)
    assert report.verdict is Verdict.UNREADABLE
    assert "C2PA: cannot be read (the process that read it crashed (SIGABRT))" in report.lines


def test_too_large_to_decode_may_still_be_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = write_image(tmp_path / "large.png", np.zeros((300, 300, 3), np.uint8), provenance=GENERATED)
    monkeypatch.setattr(looks_module, "LIMITS", looks_module.LIMITS._replace(pixels=10_000))
    report = verify_file(large, run=here)
    assert report.verdict is Verdict.MARKED
    assert "watermark: not checked" in reasons(report)
    assert "over the limit of 10000 pixels" in reasons(report)
