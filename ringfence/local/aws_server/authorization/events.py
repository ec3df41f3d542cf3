"""What CloudTrail would tell of sessions: each authenticated call of one, and who became a role. The latest ones alone.

Data events are among them, which AWS's LookupEvents leaves out. Parameters and answers aren't, except those of AssumeRole.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from ringfence.local.aws_server.authorization.sessions import Session
from ringfence.local.aws_server.recorded.store import Record, Store
from ringfence.local.aws_server.wire import Call

SERVICE, KIND = "cloudtrail", "event"
# About 1 KB each.
KEPT = 20_000
_CHARACTERS = 256


def note(
    store: Store, call: Call, now: datetime, session: Session | None, error: str = "", made: Session | None = None
) -> None:
    """Keeps one call. session: whose it was, None for the operator's; error: AWS's code when it was refused; made: the
    session that came of it."""
    shelf = store.shelf(call.account, call.region, SERVICE, KIND)
    while len(shelf) >= KEPT:
        del shelf[next(iter(shelf))]
    event: dict[str, Any] = {
        "eventVersion": "1.11",
        "eventID": str(uuid.uuid4()),
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": f"{call.operation.service_model.signing_name}.amazonaws.com",
        "eventName": call.name,
        "awsRegion": call.region,
        "recipientAccountId": call.account,
        "sourceIPAddress": str(call.environ.get("REMOTE_ADDR") or "127.0.0.1"),
        "userAgent": call.header("User-Agent")[:_CHARACTERS],
        "requestID": call.request_id,
        "userIdentity": _identity(call, session),
    }
    if error:
        event["errorCode"] = error
    if (call.service, call.name) == ("sts", "AssumeRole"):
        asked = {"roleArn": call.params.get("RoleArn"), "roleSessionName": call.params.get("RoleSessionName")}
        event["requestParameters"] = {key: str(value or "")[:_CHARACTERS] for key, value in asked.items()}
        event["responseElements"] = {"credentials": {"accessKeyId": made.access_key}} if made else None
    shelf[event["eventID"],] = Record({"at": now, "event": event})


def _identity(call: Call, session: Session | None) -> dict[str, Any]:
    if session is None:
        return {"type": "IAMUser", "accountId": call.account, "userName": "operator"}
    issuer = {"type": "Role", "arn": session.role_arn, "principalId": session.role_id, "accountId": call.account}
    return {
        "type": "AssumedRole",
        "principalId": session.user_id,
        "arn": session.arn,
        "accountId": call.account,
        "accessKeyId": session.access_key,
        "sessionContext": {"sessionIssuer": issuer, "sourceIdentity": session.source_identity},
    }
