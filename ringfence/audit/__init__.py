"""The audit trail: OCSF events in an append-only hash chain, refused attempts clustered, a verifier.

Trust zone: control side.
"""

from pathlib import Path

from ringfence.audit.refusals import Alert, Refusals
from ringfence.audit.trail import AuditError, Mirror, Trail
from ringfence.audit.verification import Verification, verify

# The trail of an environment on this machine, below its home.
TRAIL_FILE = Path("audit", "trail.jsonl")

__all__ = ["TRAIL_FILE", "Alert", "AuditError", "Mirror", "Refusals", "Trail", "Verification", "verify"]
