"""USER, its interval, agreement and exclusions, against published numbers, SciPy, and hand-counted studies."""

import json
from pathlib import Path

import pytest
from commands import study as main
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_user_study_answers import KEY, key_of, sheet_of

from th_jax.evaluation.user_study.answer_key import key_text
from th_jax.evaluation.user_study.answers import Answer, ConflictingAnswer, MalformedSheet, Sheet, read_sheet
from th_jax.evaluation.user_study.frames import CHECK
from th_jax.evaluation.user_study.report import collect_sheets, report_markdown, report_study
from th_jax.evaluation.user_study.statistics import krippendorff_alpha, pairwise_agreement, wilson_share
from th_jax.evaluation.user_study.store import ANSWERS_FILE, AnswerStore


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    share = wilson_share(*counts)
    assert share is not None
    theirs = stats.binomtest(*counts).proportion_ci(confidence_level=0.95, method="wilson")
    assert (share.low, share.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_wilson_at_the_ends_and_out_of_range() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for counts, interval in published.items():
        share = wilson_share(*counts)
        assert share is not None
        assert (share.low, share.high) == pytest.approx(interval, abs=5e-5)
    assert wilson_share(0, 0) is None
    for found, of, confidence in ((2, 1, 0.95), (-1, 1, 0.95), (0, 1, 1.0)):
        with pytest.raises(ValueError, match="a proportion needs"):
            wilson_share(found, of, confidence=confidence)


def test_agreement_of_a_published_example() -> None:
    # Krippendorff, Computing Krippendorff's alpha-reliability (2011), example C: four observers, twelve units, gaps.
    units = [[1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4], [1, 1, 2, 1],
             [2, 2, 2, 2], [5, 5, 5], [1, 1], [3]]  # fmt: skip
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_agreement_in_closed_form() -> None:
    assert pairwise_agreement([[1, 1, 2], [3]]) == pytest.approx(1 / 3)
    assert pairwise_agreement([[1, 1], [2, 2]]) == krippendorff_alpha([[1, 1], [2, 2]]) == 1.0
    assert krippendorff_alpha([[1, 2], [2, 1]]) == pytest.approx(-0.5)
    assert pairwise_agreement([[1], []]) is krippendorff_alpha([[1], [2]]) is None
    assert krippendorff_alpha([[2, 2], [2, 2]]) is None, "all choices are the same: chance would agree as well"


def sheet(rater: str, choices: dict[str, int]) -> Sheet:
    return Sheet(rater * 32, tuple(Answer(name, choice, 2000, i) for i, (name, choice) in enumerate(choices.items())))


# Triplets 0..3 are FF of T = 1, 4..6 FT of T = 8, 7 and 8 attention checks. The fake of triplet i is i % 3 + 1.
STUDY_KEY = key_of({("FF", 1): 4, ("FT", 8): 3, (CHECK, 0): 2})
RIGHT = {name: triplet.fake for name, triplet in STUDY_KEY.triplets.items()}


def test_numbers_are_those_of_the_answers() -> None:
    found_all = sheet("a", RIGHT)
    found_half = sheet("b", RIGHT | {"0": 2, "1": 3, "4": 1})
    one_check_wrong = sheet("c", RIGHT | {"7": 1})
    checks_missing = sheet("d", {"0": 1, "7": RIGHT["7"]})
    report = report_study(STUDY_KEY, [found_all, found_half, one_check_wrong, checks_missing])
    assert [rater.excluded for rater in report.raters] == [
        "", "", "failed 1 of 2 attention checks", "answered 1 of 2 attention checks",
    ]  # fmt: skip
    assert [(rater.answers, rater.found, rater.checks) for rater in report.raters] == [
        (7, 7, 2),
        (7, 4, 2),
        (7, 7, 2),
        (1, 1, 1),
    ]
    cells = {(cell.method, cell.shots): cell for cell in report.cells}
    assert set(cells) == {("FF", 1), ("FT", 8)}, "attention checks are no method"
    ff, ft = cells["FF", 1], cells["FT", 8]
    assert (ff.user, ft.user) == (wilson_share(6, 8), wilson_share(5, 6))
    assert (ff.raters, ff.triplets, ff.three_videos) == (2, 4, 4)
    assert ff.pairwise_agreement == 0.5
    assert ft.pairwise_agreement == pytest.approx(2 / 3)
    assert report.pairwise_agreement == pytest.approx(4 / 7)
    assert sum(report.sides) == 14
    text = report_markdown(report)
    assert "| FF | 1 | 0.750 | [0.409, 0.929] | 8 | 2 | 4 | 4 | 0.500 |" in text
    assert "Raters: 4, of whom 2 are included." in text
    assert "- cccccccc, 7 answers: failed 1 of 2 attention checks" in text

    lenient = report_study(STUDY_KEY, [found_all, one_check_wrong], allowed_failures=1)
    assert {cell.user for cell in lenient.cells} == {wilson_share(8, 8), wilson_share(6, 6)}
    with pytest.raises(ValueError, match=r"allowed_failures .* got -1"):
        report_study(STUDY_KEY, [], allowed_failures=-1)


def test_an_empty_report() -> None:
    report = report_study(STUDY_KEY, [])
    assert [cell.user for cell in report.cells] == [None, None]
    assert "| FF | 1 | – | – | 0 | 0 | 0 | 0 | – | – |" in report_markdown(report)


def test_order_of_raters_and_answers_does_not_matter() -> None:
    sheets = [sheet("a", RIGHT), sheet("b", RIGHT | {"0": 2, "5": 1}), sheet("c", RIGHT | {"3": 2})]
    turned = [Sheet(one.rater, one.answers[::-1]) for one in reversed(sheets)]
    assert report_study(STUDY_KEY, sheets).cells == report_study(STUDY_KEY, turned).cells


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with one posted answer of rater a, and the file of all of them beside it."""
    (tmp_path / "key.json").write_text(key_text(KEY))
    right = {name: triplet.fake for name, triplet in KEY.triplets.items()}
    store = AnswerStore(tmp_path / ANSWERS_FILE, KEY)
    store.add(read_sheet(json.dumps(sheet_of({"0": right["0"]})).encode(), KEY))
    (tmp_path / "a.json").write_text(json.dumps(sheet_of(right)))
    (tmp_path / "b.json").write_text(json.dumps(sheet_of(right | {"0": 3}, rater="b" * 32)))
    return tmp_path


def test_posted_and_downloaded_answers_are_merged(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheets = collect_sheets(study, files=[study / "a.json", study / "a.json", study / "b.json"])
    assert [len(one.answers) for one in sheets] == [6, 6]
    files = [str(study / name) for name in ("a.json", "b.json")]
    assert main(["report", str(study), "--answers", *files, "--out", str(study / "out")]) == 0
    assert "| FT | 8 | 0.875 |" in capsys.readouterr().out
    record = json.loads((study / "out/user_study.json").read_text())
    assert record["cells"][0]["user"]["found"] == 7
    assert record["cells"][0]["user"]["of"] == 8
    assert record["study"]["study"] == KEY.study
    assert "0.875" in (study / "out/user_study.md").read_text()


def test_answers_that_do_not_fit_are_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "a.json").write_text(json.dumps(sheet_of({"0": 2})))
    with pytest.raises(ConflictingAnswer, match=r"a\.json: rater a+ already answered triplet 0"):
        collect_sheets(study, files=[study / "a.json"])
    (study / "b.json").write_text("{}")
    with pytest.raises(MalformedSheet, match=r"b\.json: a sheet has missing or unknown fields"):
        collect_sheets(study, files=[study / "b.json"])
    assert main(["report", str(study), "--answers", str(study / "c.json")]) == 1
    assert capsys.readouterr().err == f"th-jax study: there are no answers at {study / 'c.json'}\n"
