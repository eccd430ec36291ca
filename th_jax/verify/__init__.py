"""Says whether a picture or film is marked as made by a machine, by which marks and whose, and whether it was altered.

python -m th_jax.verify FILE... [--json]

Free and offline: docs/provenance.md.
"""

from th_jax.verify.file import FileReport, verify_file
from th_jax.verify.verdict import Verdict, worst

__all__ = ["FileReport", "Verdict", "verify_file", "worst"]
