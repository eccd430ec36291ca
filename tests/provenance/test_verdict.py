"""The verdict as a function of the check results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from th_jax.provenance.c2pa_read import report_of
from th_jax.provenance.verify import Seen, Verdict, verdict_of, worst

INTACT = report_of(None)._replace(intact=True, machine_made=True)._asdict()
BROKEN = report_of(None)._asdict()
CAMERA = INTACT | {"machine_made": False}
FOUND, NONE = {"looked_for": True, "marks": [{"message": "00"}]}, {"looked_for": True, "marks": []}
FITS = {"fault": None, "matches": True, "kind": "generated", "generated": True, "unmarked_for_research": False}
OTHER = FITS | {"matches": False}


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Seen(manifest=INTACT, pixels=FOUND, sidecar=FITS), Verdict.MARKED),
        (Seen(manifest=INTACT, pixels=NONE, sidecar=OTHER), Verdict.MARKED),
        (Seen(manifest=INTACT, pixels_fault="too large"), Verdict.MARKED),
        (Seen(manifest=INTACT | {"expired": True}, pixels=NONE), Verdict.MARKED),
        (Seen(manifest=BROKEN, pixels=FOUND, sidecar=FITS), Verdict.ALTERED),
        (Seen(manifest=BROKEN, pixels_fault="damaged"), Verdict.ALTERED),
        (Seen(manifest=CAMERA, pixels=NONE), Verdict.NOT_FOUND),
        (Seen(manifest=CAMERA, pixels=FOUND), Verdict.STRIPPED),
        (Seen(pixels=FOUND), Verdict.STRIPPED),
        (Seen(pixels=FOUND, sidecar=OTHER), Verdict.STRIPPED),
        (Seen(pixels=FOUND, sidecar=FITS), Verdict.MARKED),
        (Seen(pixels=NONE, sidecar=FITS), Verdict.MARKED),
        (Seen(pixels=NONE, sidecar=FITS | {"unmarked_for_research": True}), Verdict.NOT_FOUND),
        (Seen(pixels=NONE, sidecar=FITS | {"generated": False}), Verdict.NOT_FOUND),
        (Seen(pixels=NONE, sidecar=OTHER), Verdict.ALTERED),
        (Seen(pixels=NONE, sidecar={"fault": "no record"}), Verdict.NOT_FOUND),
        (Seen(manifest=BROKEN | {"elsewhere": True}, pixels=NONE), Verdict.NOT_FOUND),
        (Seen(pixels=NONE), Verdict.NOT_FOUND),
        (Seen(pixels_fault="damaged"), Verdict.UNREADABLE),
        (Seen(pixels_fault="no image", sidecar=FITS), Verdict.UNREADABLE),
        (Seen(pixels_fault="no image", sidecar=OTHER), Verdict.ALTERED),
        (Seen(manifest_fault="crashed", pixels=FOUND), Verdict.UNREADABLE),
    ],
)
def test_verdicts(seen: Seen, verdict: Verdict) -> None:
    assert verdict_of(seen) is verdict


def test_exit_codes_are_as_documented() -> None:
    assert {v.value: v.exit_code for v in Verdict} == {
        "marked": 0,
        "not found": 1,
        "altered": 2,
        "unreadable": 3,
        "stripped": 4,
    }


def test_the_worst_of_several() -> None:
    assert worst([Verdict.MARKED, Verdict.STRIPPED]) is Verdict.STRIPPED
    assert worst([Verdict.NOT_FOUND, Verdict.STRIPPED]) is Verdict.NOT_FOUND
    assert worst([Verdict.ALTERED, Verdict.NOT_FOUND]) is Verdict.ALTERED
    assert worst([Verdict.ALTERED, Verdict.UNREADABLE, Verdict.MARKED]) is Verdict.UNREADABLE


STORE = {
    "active_manifest": "a",
    "validation_state": "Valid",
    "manifests": {
        "a": {
            "claim_generator_info": [{"name": "th_jax", "version": "1"}],
            "signature_info": {"common_name": "Ada", "issuer": "Ada's", "cert_serial_number": "7"},
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [{"digitalSourceType": "https://x/digitalCapture"}]}},
                {"label": "org.th_jax.provenance", "data": {"kind": "generated", "avatar": None, "more": [1]}},
            ],
        }
    },
}


def with_failures(*codes: str, state: str = "Invalid") -> dict:
    results = {"activeManifest": {"failure": [{"code": code} for code in codes]}}
    return STORE | {"validation_state": state, "validation_results": results}


def test_a_store_s_report() -> None:
    report = report_of(STORE)
    assert (report.intact, report.trusted, report.expired, report.machine_made) == (True, False, False, False)
    assert (report.signer, report.serial, report.generator) == ("Ada", "7", "th_jax 1")
    assert report.source_types == ("https://x/digitalCapture",)
    assert report.provenance["kind"] == "generated"
    assert report.provenance["avatar"] == ""


@pytest.mark.parametrize(
    ("store", "intact", "expired"),
    [
        (with_failures("signingCredential.untrusted", state="Valid"), True, False),
        (with_failures("signingCredential.untrusted", "signingCredential.expired"), True, True),
        (with_failures("signingCredential.expired", "assertion.dataHash.mismatch"), False, True),
        (with_failures("claimSignature.mismatch"), False, False),
        (with_failures("signingCredential.revoked"), False, False),
        (with_failures(state="Invalid"), False, False),
        (STORE | {"active_manifest": "b"}, False, False),
        (STORE | {"validation_state": None}, False, False),
    ],
)
def test_what_counts_as_intact(store: dict, intact: bool, expired: bool) -> None:
    assert (report_of(store).intact, report_of(store).expired) == (intact, expired)


def test_a_failure_under_an_ingredient_counts() -> None:
    delta = {"validationDeltas": {"failure": [{"code": "assertion.dataHash.mismatch"}]}}
    below = STORE | {"validation_results": {"activeManifest": {"failure": []}, "ingredientDeltas": [delta]}}
    report = report_of(below)
    assert (report.intact, report.faults) == (False, ("assertion.dataHash.mismatch",))
    assert report_of(below | {"validation_results": {"activeManifest": {"failure": []}}}).intact


def test_a_machine_in_an_ingredient_counts() -> None:
    actions = {
        "actions": [{"digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"}]
    }
    below = {"b": {"assertions": [{"label": "c2pa.actions", "data": actions}]}}
    report = report_of(STORE | {"manifests": STORE["manifests"] | below})
    assert report.machine_made
    assert report.source_types == ("https://x/digitalCapture",)


FIELDS = [
    *(
        "active_manifest",
        "manifests",
        "a",
        "assertions",
        "label",
        "data",
        "actions",
        "digitalSourceType",
        "name",
        "code",
    ),
    *("signature_info", "common_name", "claim_generator_info", "validation_state", "validation_results"),
    *("activeManifest", "failure"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["manifests", "validation_results", "active_manifest", "validation_state"]))
def test_any_store_gives_a_report(value: object, field: str) -> None:
    assert report_of(value).intact is False
    report_of(STORE | {field: value})
    report_of(STORE | {"manifests": {"a": value}})
    report_of(STORE | {"manifests": {"a": STORE["manifests"]["a"] | {"assertions": value}}})
