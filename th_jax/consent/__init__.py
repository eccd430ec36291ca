"""Consent records: who agreed to what, for which images, until when; and the checks that use them. Loads no jax."""

from th_jax.consent.checks import (
    CONSENTS_VARIABLE,
    FACTS,
    NO_CONSENT,
    NOT_RECORDED,
    ConsentFacts,
    check_driving,
    check_shots,
    check_valid,
    consent_digest,
    facts_of,
    file_digest,
    make_consent,
    revoke_consent,
    with_consent,
)
from th_jax.consent.record import (
    Basis,
    ConsentError,
    ConsentRecord,
    read_consent,
    write_consent,
)

__all__ = [
    "CONSENTS_VARIABLE",
    "FACTS",
    "NOT_RECORDED",
    "NO_CONSENT",
    "Basis",
    "ConsentError",
    "ConsentFacts",
    "ConsentRecord",
    "check_driving",
    "check_shots",
    "check_valid",
    "consent_digest",
    "facts_of",
    "file_digest",
    "make_consent",
    "read_consent",
    "revoke_consent",
    "with_consent",
    "write_consent",
]
