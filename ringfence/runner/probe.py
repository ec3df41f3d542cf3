"""Shows AWS's own refusal: a tool's credential, issued as for a task, reads what it may and is refused what it may not.

Trust zone: control side.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.invocation import Invocation, new_id
from ringfence.runner.ports import Collaborators, Credential, Entry
from ringfence.runner.task_file import Place, Probe

SECONDS = 60
DENIED = "AccessDenied"


def probe(asked: Probe, user: str, parts: Collaborators, client_of: Callable[[Credential, str], Any]) -> str:
    """What AWS says to the reading of `asked`, in a sentence. client_of: makes a client of a service with a credential.

    The credential is journalled like a task's, so that a killed runner leaves none behind, and revoked at the end.
    Raises InputError when the credential reads what it must not; RingfenceError when it can't read what it may, or when
    the refusal is another than AWS's denial: neither shows anything.
    """
    now = datetime.now(UTC)
    invocation = Invocation(new_id(), user, "probe", (asked.tool,), now, now + timedelta(seconds=SECONDS), model="none")
    parts.journal.begin(Entry(invocation.id, parts.owners.id, invocation.deadline))
    try:
        credential = parts.broker.issue(invocation, asked.tool)
        said = _read(asked, client_of(credential, "s3"))
    finally:
        # One that can't be revoked stays in the journal, for the reaper.
        parts.broker.revoke(invocation_id=invocation.id)
        parts.journal.end(invocation.id)
    parts.audit.record("probe.ended", invocation, tool=asked.tool, resource=_shown(asked), detail=said)
    return said


def _read(asked: Probe, s3: Any) -> str:
    """The sentence. Without the same credential's success elsewhere a refusal could have any cause."""
    try:
        s3.get_object(Bucket=asked.granted.bucket, Key=asked.granted.key)["Body"].close()
    except (ClientError, BotoCoreError) as error:
        raise RingfenceError(
            f"the probe shows nothing: the tool's credentials can't read {_shown(asked.granted)} either: {error}\n"
            "    remedy: name in probe.granted what the tool may read"
        ) from None
    try:
        s3.get_object(Bucket=asked.bucket, Key=asked.key)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code != DENIED:
            raise RingfenceError(
                f"the probe shows nothing: {_shown(asked)} was refused as {code}, not as {DENIED}: {error}\n"
                "    remedy: name in probe an object that exists"
            ) from None
        return f"the tool's credentials read {_shown(asked.granted)}; AWS refuses them {_shown(asked)}: {error}"
    text = f"the tool's credentials read {_shown(asked)}"
    raise InputError([Problem("probe", "bucket", text, "narrow its grants")])


def _shown(place: Place | Probe) -> str:
    return f"s3://{place.bucket}/{place.key}"
