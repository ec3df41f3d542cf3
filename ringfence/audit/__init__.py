"""The audit trail: OCSF events in an append-only hash chain, refused attempts clustered, a verifier.

Trust zone: control side.
"""

from ringfence.audit.refusals import Alert, Refusals
from ringfence.audit.trail import AuditError, Trail
from ringfence.audit.verification import Verification, verify

__all__ = ["Alert", "AuditError", "Refusals", "Trail", "Verification", "verify"]
