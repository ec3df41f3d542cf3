"""How credentials are revoked: each tool role has an inline policy `revoked` that denies the listed ones everything.

IAM has no way to end a session; AWS's own "revoke active sessions" is such a Deny too. Credentials are told apart by
the session tag `credential`, which no session of a tool role is without (its trust policy demands it). A credential
stays listed until its own policy has ended it. IAM applies a change within seconds, not at once.
See docs/decisions/0009-credentials-are-revoked-by-a-deny-on-the-role.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ringfence.broker.ledger import DENIED, Entry, Ledger, State
from ringfence.broker.model import BrokerError, stamp
from ringfence.iam.rendering import INLINE_POLICIES_LIMIT, document, policy_size, statement
from ringfence.iam.tool_documents import CREDENTIAL_TAG

POLICY_NAME = "revoked"
# What the policy lists when nothing is revoked; no credential has this id.
NOTHING = "none"
# AWS's clock and ours may differ by this much.
CLOCK_MARGIN = timedelta(seconds=60)
# The session name of an entry that stands for every session issued until its time of issue, known or not; it stays as
# long as a tool's role allows a session to last (MAX_SESSION_SECONDS in components/tool_role.py).
EVERY_SESSION = "*"
LONGEST_SESSION = timedelta(hours=1)
_LOG = logging.getLogger(__name__)


def revoked_document(ids: Sequence[str] = (), cutoff: datetime | None = None) -> str:
    """The policy that denies everything to credentials `ids`, and to every session issued at `cutoff` or before."""
    listed = statement(
        "Deny", "*", "*", {"StringEquals": {f"aws:PrincipalTag/{CREDENTIAL_TAG}": list(ids) or [NOTHING]}}
    )
    if cutoff is None:
        return document(listed)
    older = {"DateLessThanEquals": {"aws:TokenIssueTime": stamp(cutoff)}}
    return document(listed, statement("Deny", "*", "*", older))


def fitted(entries: Sequence[Entry], room: int) -> tuple[str, datetime | None]:
    """The policy within `room` characters, and its cutoff.

    When not all ids fit, the longest issued ones are covered by a cutoff instead, which also ends other sessions of the
    role that are as old. Raises BrokerError when even that isn't enough: sessions whose issue time is unknown have no
    cutoff.
    """
    wanted = [entry.issued for entry in entries if entry.session_name == EVERY_SESSION and entry.issued]
    single = [entry for entry in entries if entry.session_name != EVERY_SESSION]
    cutoffs = [max(wanted, default=None), *sorted(entry.issued for entry in single if entry.issued)]
    for cutoff in cutoffs:
        if wanted and cutoff is not None and cutoff < max(wanted):
            continue
        left = [entry.id for entry in single if cutoff is None or entry.issued is None or entry.issued > cutoff]
        text = revoked_document(sorted(left), cutoff)
        if policy_size(text) <= room:
            return text, cutoff
    raise BrokerError(f"{len(entries)} revoked credentials don't fit the policy's {room:,} characters")


class Revocations:
    """Writes the lists. iam: a boto3 client that may put the policy of tool roles."""

    def __init__(self, iam: Any, ledger: Ledger):
        self._iam = iam
        self._ledger = ledger

    def enforce(self, role_arn: str, grants: str, now: datetime, *, rewrite: bool = False) -> None:
        """Makes the role's list say what the ledger says. grants: the role's other inline policy, for the quota;
        rewrite: also when nothing is to be added. Raises BrokerError; then entries stay `revoking`.

        Whoever writes reads the ledger again afterwards, so that of several writers the last one's list is whole.
        """
        role = role_arn.rpartition("/")[2]
        room = INLINE_POLICIES_LIMIT - policy_size(grants)
        with self._ledger.exclusive(role):
            while True:
                entries = self._denied(role_arn, now)
                if not rewrite and all(entry.state is State.REVOKED for entry in entries):
                    return
                self._put(role, entries, room)
                for entry in entries:
                    if entry.state is State.REVOKING:
                        self._ledger.change(entry.id, {State.REVOKING}, state=State.REVOKED)
                written = {entry.id for entry in entries}
                if all(entry.id in written for entry in self._denied(role_arn, now)):
                    return
                rewrite = True

    def _denied(self, role_arn: str, now: datetime) -> list[Entry]:
        return [
            entry for entry in self._ledger.open(role_arn=role_arn, states=DENIED) if entry.ends + CLOCK_MARGIN > now
        ]

    def _put(self, role: str, entries: Sequence[Entry], room: int) -> None:
        text, cutoff = fitted(entries, room)
        if cutoff is not None:
            _LOG.warning("role %s: every session issued until %s is denied", role, stamp(cutoff))
        try:
            self._iam.put_role_policy(RoleName=role, PolicyName=POLICY_NAME, PolicyDocument=text)
        except (ClientError, BotoCoreError) as error:
            raise BrokerError(
                f"credentials of role {role} could not be revoked: {error}\n"
                "    remedy: `ringfence credentials prune` tries again; they end by themselves within minutes"
            ) from None
