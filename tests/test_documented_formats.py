"""docs/file-formats.md: each table of fields is that of the code, and so is each version."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_prep.build.drop_report import DROP_REPORT_FILE, LEVELS, Drop
from th_jax import weights
from th_jax.avatars import file as avatars
from th_jax.avatars.output import Outcome
from th_jax.consent import record as consents
from th_jax.consent.checks import ConsentFacts
from th_jax.data import schema, tfrecord, video_list
from th_jax.driving import many, motion
from th_jax.evaluation.protocol import plan, results, score_store
from th_jax.evaluation.user_study import answer_key, answers, frames, store, triplets
from th_jax.landmarks.arkit import NAMES
from th_jax.perceptual import frozen
from th_jax.provenance import record as provenance
from th_jax.storage import checkpoint_format, hub_folder
from th_jax.storage.checkpoints import SCORE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "file-formats.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def documented(section: str) -> list[str]:
    """Names in the first column of the section's last table, which begins with "field"."""
    table = re.findall(r"^\| field.*?\n\|[-|]+\n((?:\|.*\n)+)", SECTIONS[section], re.M)[-1]
    return [name for row in table.splitlines() for name in re.findall(r"`([\w]+)`", row.split("|")[1])]


def fields_of(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(kind._fields)


FIELDS = {
    "Data sets": list(schema.FEATURES),
    "Drop reports": fields_of(Drop),
    "Motion files": ["time", "jawOpen", *motion.POSE],
    "Consent records": ["schema", *fields_of(consents.ConsentRecord)],
    "Provenance records": ["schema", *fields_of(provenance.Provenance)],
    "Reports of many people": fields_of(Outcome),
    "Evaluation folders": ["name", "video_id", "identity", "shots", "targets", "driving", "driver"],
    "User studies": ["schema", *fields_of(answer_key.StudyKey)],
    "Runs and checkpoints": [*checkpoint_format._OWN_KEYS, "config", "videos", "video_list", SCORE],
    "Released weights": [*weights._REQUIRED, *weights._OWN_KEYS, "config", "discriminator_updates", "averaged_with"],
    "Avatars": [
        *avatars._OWN_KEYS,
        *("request", "settings", "made_from", "shots", "steps", "best_of", "held_out_scores", "consent", "compaction"),
    ],
}


@pytest.mark.parametrize("section", FIELDS)
def test_the_fields_are_those_of_the_code(section: str) -> None:
    assert sorted(documented(section)) == sorted(FIELDS[section])


def test_the_versions_are_those_of_the_code() -> None:
    rows = {line.split("|")[1].strip(): line for line in SECTIONS["Versions"].splitlines() if line.startswith("| ")}
    assert f"`{avatars.FORMAT}`" in rows["avatar"]
    assert f"`{weights.FORMAT}`" in rows["released weights"]
    assert f"`{frozen.FORMAT}`" in rows["converted weights of frozen networks"]
    assert f"`{checkpoint_format.FORMAT}`, `schema` {checkpoint_format.SCHEMA} |" in rows["checkpoint"]
    assert f"`schema_version` {schema.SCHEMA_VERSION} |" in rows["record of a data set"]
    assert f"`version` {video_list.LIST_VERSION} |" in rows["list of videos"]
    assert f"`schema` {consents.CONSENT_SCHEMA} |" in rows["consent record"]
    assert f"`schema` {provenance.PROVENANCE_SCHEMA} |" in rows["provenance record"]
    assert results.RESULTS_SCHEMA == plan.CHOSEN_SCHEMA == 1
    assert f"{score_store.CELL_SCHEMA} in cells" in rows["evaluation"]
    assert frames.INDEX_SCHEMA == answer_key.KEY_SCHEMA == answers.SHEET_SCHEMA == 1


def test_lists_of_values_and_names_of_files() -> None:
    assert all(f"`{level}`" in SECTIONS["Drop reports"] for level in LEVELS)
    assert f"`{DROP_REPORT_FILE}`" in SECTIONS["Drop reports"]
    for kinds, section in (
        (consents.Basis, "Consent records"),
        (consents.Use, "Consent records"),
        (provenance.Kind, "Provenance records"),
        (provenance.Person, "Provenance records"),
        (provenance.Role, "Provenance records"),
    ):
        assert all(f"`{kind.value}`" in SECTIONS[section] for kind in kinds)
    assert all(f"`{kind}`" in SECTIONS["Avatars"] or f"| {kind} |" in SECTIONS["Avatars"] for kind in avatars._KINDS)
    assert all(f"`{field}`" in SECTIONS["Reports of many people"] for field in many.VideoOutcome._fields)
    assert all(f"`{name}`" in SECTIONS["Reports of many people"] for name in many.LIST_COLUMNS)
    assert {"name", "size", "seed"} <= set(documented("User studies"))
    for names in (triplets.Triplet._fields, answers.Answer._fields):
        assert all(f"`{name}`" in SECTIONS["User studies"] for name in names)
    columns = re.findall(r"(\w+) (?:TEXT|INTEGER) NOT NULL", store._TABLES.partition("answers (")[2])
    assert len(columns) == 6
    assert all(f"`{column}`" in SECTIONS["User studies"] for column in columns)
    hub = (hub_folder.WEIGHTS, hub_folder.CONFIG, hub_folder.CARD, hub_folder.SUMS)
    assert all(f"`{name}`" in SECTIONS["Released weights"] for name in hub)
    assert {"basis", "expires"} < set(ConsentFacts._fields)


def test_numbers_and_types() -> None:
    data = SECTIONS["Data sets"]
    for name, feature in schema.FEATURES.items():
        (row,) = [line for line in data.splitlines() if line.startswith(f"| `{name}` |")]
        written = row.split("|")[2].strip()
        if feature.shape:
            assert written == f"{feature.kind} [{', '.join(map(str, feature.shape))}]", name
        elif feature.kind != "bytes":
            assert written == feature.kind
    assert tfrecord._MAGIC.decode() in data
    assert [tfrecord._ROW[name].str for name in ("offset", "length", "crc")] == ["<u8", "<u8", "<u4"]
    for name in video_list.VideoEntry._fields:
        assert name in data
    for name in video_list.VideoList._fields:
        assert f"`{name}`" in data
    motions = SECTIONS["Motion files"]
    assert "jawOpen" in NAMES
    assert len(NAMES) == 52
    assert f"{motion.MOST_FRAMES:,} frames" in motions
    assert [motion._MOST[name] for name in motion.POSE] == [90, 90, 180, 4, 10, 10]
    assert [motion._LEAST[name] for name in motion.POSE] == [-90, -90, -180, 0.25, -10, -10]
    record = SECTIONS["Consent records"]
    assert f"1 to {consents.MAX_SUBJECT} characters" in record
    assert f"up to {consents.MAX_SCOPE:,} characters" in record
    assert f"1 to {consents.MAX_SHOTS:,}" in record
    assert provenance.MAX_NOTES == 64 * 1024
    assert f"up to {provenance.MAX_INGREDIENTS}" in SECTIONS["Provenance records"]


def test_the_results_of_the_documents_have_the_named_fields() -> None:
    named = re.search(r"`results.json` has (.*?)`chosen.json` lets", SECTIONS["Evaluation folders"], re.S)
    assert named
    found = json.loads((ROOT / "docs/results/heads/results.json").read_text())
    inner = {"measures", "value", "low", "high", "people", "frames", "failures", "distances"}
    assert set(re.findall(r"`(\w+)`", named[1])) - inner <= set(found)
    measures = found["cells"][0]["measures"]
    assert set(next(iter(measures.values()))) == {"value", "low", "high", "people", "frames", "failures"}
    people = json.loads((ROOT / "docs/results/heads/chosen.json").read_text())["people"]
    assert sorted(people[0]) == sorted(FIELDS["Evaluation folders"])
