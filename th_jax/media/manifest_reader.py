"""Reads the C2PA manifest of a file that anybody may have made: who signed it, what it says, whether file and signature fit.

Call `read_manifest` in a sandbox. Nothing is fetched: a manifest that stands elsewhere is reported, not read.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from th_jax.media.content_credentials import SOURCE_TYPES, c2pa, offline_context
from th_jax.media.limits import DEFAULT_LIMITS, Limits, check_file
from th_jax.media.manifest import PROVENANCE_LABEL

MADE_BY_MACHINE = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "compositeSynthetic",
    "algorithmicMedia",
)
"""IPTC's terms for pictures that a machine made, or had a part in."""

OWN_FIELDS = ("kind", "created", "avatar", "consent", "person", "watermark")

_OF_TIME = {"signingCredential.expired", "claimSignature.outsideValidity"}
"""What is wrong with a signature that was good once: without the stamp of a time authority nobody can say when it was made."""

_OF_TRUST = {"signingCredential.untrusted"}

_STORE = bytes.fromhex("63327061 0011 0010 8000 00aa00389b71")
"""JUMBF's type of a C2PA manifest store, which begins each of them in every kind of file."""

_PIECE = 2**20


class ManifestReport(NamedTuple):
    """What a file's manifests say; text of others, of any length and content."""

    intact: bool
    """Whether the signature is good and the file is the one that was signed."""
    elsewhere: bool
    """Whether the file only names an address of its manifest."""
    trusted: bool
    """Whether the certificate leads to a root that is trusted here."""
    expired: bool
    """Whether the certificate is not valid now."""
    signer: str
    """The common name in the certificate, or its organization."""
    serial: str
    """The certificate's number."""
    generator: str
    """The software that made the claim."""
    machine_made: bool
    """Whether the manifest, or one of its ingredients, says that a machine made the picture or had a part in it."""
    source_types: tuple[str, ...]
    """IPTC's terms that the manifest itself gives, without their common beginning."""
    provenance: dict[str, str] | None
    """Of this project's own record, if there is one, the fields in `OWN_FIELDS`."""
    faults: tuple[str, ...]
    """What does not hold, in the words of the C2PA specification or of the library."""


def read_manifest(
    path: str, *, trust_anchors: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Any] | None:
    """The fields of a `ManifestReport`, or None if the file carries no manifest.

    Args:
        path: of a picture or film of any kind.
        trust_anchors: root certificates, as PEM, that are trusted beside those that c2pa trusts.
        limits: on the file's size.

    Raises:
        MediaError: if it is no file that may be read.
        ValueError: for trust anchors that are none.
        OSError: if the file cannot be read.
        ImportError: without the extra `video`.
    """
    library = c2pa()
    checked = check_file(path, limits)
    with checked.open("rb") as file, offline_context(trust_anchors=trust_anchors) as context:
        try:
            reader = library.Reader.try_create(None, file, None, context)
            if reader is None:
                return None
            with reader:
                return report_of(_parsed(reader.json()))._asdict()
        except library.C2paError as error:
            return _unreadable(file, error)


def report_of(store: Any) -> ManifestReport:
    """The report of a manifest store in the form of c2pa's JSON; whatever it holds, it is no error."""
    manifests = _mapping(_mapping(store).get("manifests"))
    active = _mapping(manifests.get(_text(_mapping(store).get("active_manifest"))))
    signature = _mapping(active.get("signature_info"))
    state = _mapping(store).get("validation_state")
    faults = dict.fromkeys(_fault_codes(_mapping(store)))
    expired = any(fault in _OF_TIME for fault in faults)
    remaining = [fault for fault in faults if fault not in _OF_TIME | _OF_TRUST]
    own = list(_source_types(active))
    every = [term for manifest in manifests.values() for term in _source_types(_mapping(manifest))]
    records = [_mapping(one).get("data") for one in _items(active.get("assertions")) if _label(one) == PROVENANCE_LABEL]
    software = _mapping(next(iter(_items(active.get("claim_generator_info"))), None))
    generator = f"{_text(software.get('name'))} {_text(software.get('version'))}".strip()
    return ManifestReport(
        intact=bool(active) and not remaining and (state in ("Valid", "Trusted") or expired),
        trusted=state == "Trusted",
        elsewhere=False,
        expired=expired,
        signer=_text(signature.get("common_name")) or _text(signature.get("issuer")),
        serial=_text(signature.get("cert_serial_number")),
        generator=generator or _text(active.get("claim_generator")),
        machine_made=any(term in MADE_BY_MACHINE for term in every),
        source_types=tuple(dict.fromkeys(own)),
        provenance={name: _text(_mapping(records[0]).get(name)) for name in OWN_FIELDS} if records else None,
        faults=tuple(faults),
    )


def _unreadable(file: BinaryIO, error: Exception) -> dict[str, Any] | None:
    """A report of manifests that cannot be read; None if there are none, as the library fails at damaged pictures too."""
    elsewhere = str(error).startswith("Remote")
    if not elsewhere and not _holds_store(file):
        return None
    return report_of(None)._replace(elsewhere=elsewhere, faults=(str(error)[:500],))._asdict()


def _holds_store(file: BinaryIO) -> bool:
    file.seek(0)
    tail = b""
    while piece := file.read(_PIECE):
        if _STORE in tail + piece:
            return True
        tail = piece[-len(_STORE) :]
    return False


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _fault_codes(store: Mapping[str, Any]) -> Iterator[str]:
    results = _mapping(store.get("validation_results"))
    groups = [_mapping(results.get("activeManifest"))]
    groups += [_mapping(_mapping(delta).get("validationDeltas")) for delta in _items(results.get("ingredientDeltas"))]
    for group in groups:
        yield from (_text(_mapping(fault).get("code")) for fault in _items(group.get("failure")))


def _source_types(manifest: Mapping[str, Any]) -> Iterator[str]:
    for assertion in _items(manifest.get("assertions")):
        if _label(assertion).startswith("c2pa.actions"):
            for action in _items(_mapping(_mapping(assertion).get("data")).get("actions")):
                term = _text(_mapping(action).get("digitalSourceType"))
                if term:
                    yield term.removeprefix(SOURCE_TYPES).removeprefix(SOURCE_TYPES.replace("http:", "https:"))


def _label(assertion: Any) -> str:
    return _text(_mapping(assertion).get("label"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
