"""What happened, in the words of OCSF 1.9.0 (schema.ocsf.io): one JSON object for each event, fit for a SIEM."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from ringfence.invocation import Invocation

OCSF_VERSION = "1.9.0"
# Far above any real field; what is longer is cut, and its SHA-256 kept, so that a sandbox can't fill the disk by one.
MAX_TEXT_CHARACTERS = 8_192
MAX_FIELDS = 64
MAX_DEPTH = 6
SUCCESS, FAILURE = "success", "failure"
_KIND = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*)+")
_CATEGORIES = {2: "Findings", 3: "Identity & Access Management", 6: "Application Activity"}
_CLASSES = {
    2004: "Detection Finding",
    3002: "Authentication",
    3003: "Authorize Session",
    6002: "Application Lifecycle",
    6003: "API Activity",
}
_STATUS = {"": (0, "Unknown"), SUCCESS: (1, "Success"), FAILURE: (2, "Failure")}
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High"}


@dataclass(frozen=True, slots=True)
class Kind:
    """The OCSF class and activity of one kind of event, its severity, and how it ended unless the caller says."""

    class_uid: int = 6003
    activity_id: int = 99
    activity_name: str = "Other"
    severity_id: int = 1
    outcome: str = SUCCESS


_CREATE, _READ, _DELETE = (1, "Create"), (2, "Read"), (4, "Delete")
# Kinds not listed are API Activity, activity Other. `*.refused` and `*.failed` count as failures of medium severity.
KINDS: dict[str, Kind] = {
    "access.allowed": Kind(3003, 1, "Assign Privileges"),
    "access.refused": Kind(3003, 1, "Assign Privileges", 3, FAILURE),
    "authentication.refused": Kind(3002, 1, "Logon", 3, FAILURE),
    "alert.refusals": Kind(2004, 1, "Create", 4, ""),
    "alert.injection": Kind(2004, 1, "Create", 4, ""),
    "alert.credential": Kind(2004, 1, "Create", 4, ""),
    "injection.signal": Kind(2004, 1, "Create", 2, ""),
    "alert.rounds": Kind(2004, 1, "Create", 4, ""),
    "invocation.started": Kind(6003, *_CREATE),
    "invocation.ended": Kind(6003, *_DELETE),
    "credential.issued": Kind(6003, *_CREATE),
    "credential.revoked": Kind(6003, *_DELETE),
    "sandbox.started": Kind(6003, *_CREATE),
    "sandbox.removed": Kind(6003, *_DELETE),
    "sandbox.statements_cut": Kind(severity_id=2),
    "unit.reaped": Kind(6003, *_DELETE, severity_id=2),
    "service.started": Kind(6002, 3, "Start"),
    "service.stopped": Kind(6002, 4, "Stop"),
    "trail.mended": Kind(6002, 99, "Other", 3),
}


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises ValueError when the name isn't dotted lower case."""
    if not _KIND.fullmatch(name):
        raise ValueError(f"audit kind {name!r} | write e.g. tool.called")
    if name in KINDS:
        return KINDS[name]
    failed = name.endswith((".refused", ".failed"))
    return Kind(severity_id=3, outcome=FAILURE) if failed else Kind()


def bounded(value: Any, depth: int = 0) -> Any:
    """`value` cut to what a record may hold, a cut text with its length and hash."""
    if isinstance(value, str):
        if len(value) <= MAX_TEXT_CHARACTERS:
            return value
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{value[:MAX_TEXT_CHARACTERS]}… [{len(value)} characters, sha256 {digest}]"
    if isinstance(value, (Mapping, Sequence)) and depth >= MAX_DEPTH:
        return "[nested too deeply]"
    if isinstance(value, Mapping):
        return {str(key)[:256]: bounded(item, depth + 1) for key, item in list(value.items())[:MAX_FIELDS]}
    if isinstance(value, Sequence):
        return [bounded(item, depth + 1) for item in value[:MAX_FIELDS]]
    # JSON has no NaN and no infinity.
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return bounded(str(value), depth)


@functools.cache
def _own_version() -> str:
    return version("ringfence")


def _classified(kind: Kind) -> dict[str, Any]:
    """OCSF's place for a kind: category, class, activity and severity."""
    category = kind.class_uid // 1000
    return {
        "category_uid": category,
        "category_name": _CATEGORIES[category],
        "class_uid": kind.class_uid,
        "class_name": _CLASSES[kind.class_uid],
        "activity_id": kind.activity_id,
        "activity_name": kind.activity_name,
        "type_uid": kind.class_uid * 100 + kind.activity_id,
        "severity_id": kind.severity_id,
        "severity": _SEVERITIES[kind.severity_id],
    }


def event(
    name: str, uid: str, now: datetime, invocation: Invocation | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """One event.

    fields: `user`, `groups`, `tool`, `code`, `detail`, `source` (address), `outcome`, `resource` go to their OCSF places,
    the rest to `unmapped`. Raises ValueError for a malformed kind or outcome.
    """
    kind = kind_of(name)
    rest = {key: value for key, value in fields.items() if value is not None}
    outcome = str(rest.pop("outcome", kind.outcome))
    if outcome not in _STATUS:
        raise ValueError(f"outcome {outcome!r} | one of {SUCCESS}, {FAILURE}")
    status_id, status = _STATUS[outcome]
    user = str(rest.pop("user", invocation.user if invocation else ""))
    actor: dict[str, Any] = {"user": {"name": user, "type": "User"}}
    if groups := rest.pop("groups", ()):
        actor["user"]["groups"] = [{"name": str(group)} for group in groups]
    made: dict[str, Any] = {
        **_classified(kind),
        "status_id": status_id,
        "status": status,
        "time": int(now.timestamp() * 1000),
        "metadata": {
            "version": OCSF_VERSION,
            "uid": uid,
            "event_code": name,
            "product": {"name": "Ringfence", "vendor_name": "Ringfence", "version": _own_version()},
            "profiles": ["ai_operation", "record_integrity"],
        },
        "actor": actor,
        "api": {"operation": name, "service": {"name": "ringfence"}},
        "src_endpoint": {"ip": str(rest.pop("source", ""))},
    }
    if code := rest.pop("code", ""):
        made["status_code"] = str(code)
    if detail := rest.pop("detail", ""):
        made["status_detail"] = made["message"] = str(detail)
    resources = [("tool", rest.pop("tool", "")), ("resource", rest.pop("resource", ""))]
    if named := [{"type": kind_name, "name": str(value)} for kind_name, value in resources if value]:
        made["resources"] = named
    if kind.class_uid == 3003:
        made["user"] = actor["user"]
    if made["category_uid"] == 2:
        made["finding_info"] = {
            "uid": uid,
            "title": made.get("message", name),
            "analytic": {"name": name, "type_id": 1},
        }
    if invocation is not None:
        made["metadata"]["correlation_uid"] = invocation.id
        actor["session"] = {"uid": invocation.id, "created_time": int(invocation.started.timestamp() * 1000)}
        made["unmapped"] = {"conversation": invocation.conversation_id}
    if rest:
        made["unmapped"] = made.get("unmapped", {}) | rest
    return bounded(made)
