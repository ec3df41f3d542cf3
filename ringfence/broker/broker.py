"""The broker itself: issues a tool's credentials for one invocation, revokes them, prunes what is over.

Trust zone: control side.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ringfence.broker import anomalies
from ringfence.broker.ledger import ACTIVE, DENIED, KEPT_DAYS, OPEN, Entry, Ledger, State
from ringfence.broker.model import (
    MAX_SECRET_BYTES,
    SESSION_SECONDS,
    BrokerError,
    Credential,
    Scope,
    SecretUnavailable,
    new_id,
)
from ringfence.broker.revocation import CLOCK_MARGIN, EVERY_SESSION, LONGEST_SESSION, Revocations
from ringfence.broker.secret_stores import SecretStore
from ringfence.broker.session_policy import session_policy
from ringfence.catalog.model import Catalog, Tool
from ringfence.errors import InputError, Problem
from ringfence.iam.session_grants import needs_credential
from ringfence.iam.tool_documents import CREDENTIAL_TAG, INVOCATION_TAG, TOOL_TAG, USER_TAG, grants_document
from ringfence.invocation import Invocation
from ringfence.names import Names

# What STS takes as a tag's value (docs.aws.amazon.com/STS/latest/APIReference/API_Tag.html).
_TAG_VALUE = re.compile(r"^[\w .:/=+\-@]{1,256}\Z")
# A request to STS is over by then; an entry that is still waiting belongs to a broker that was killed.
ORPHANED_AFTER = timedelta(seconds=120)
# Secrets are masked in logs for this long after their end: logs come late.
_MASKED_AFTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one pass did. revoked: entries of killed brokers, and revocations that had failed before; lapsed: entries whose
    time was over; forgotten: old records deleted."""

    revoked: int
    lapsed: int
    forgotten: int


class Broker:
    """Issues and ends credentials. Safe for use from many threads, and from several processes on one ledger.

    names, catalog: of the environment; sts_client, iam_client: boto3 clients with the broker's role; clock: aware, UTC;
    secret_store: where tools' secrets that are not AWS's come from, None for nowhere.
    """

    def __init__(
        self,
        names: Names,
        catalog: Catalog,
        sts_client: Any,
        iam_client: Any,
        ledger: Ledger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        secret_store: SecretStore | None = None,
    ):
        self._names = names
        self._catalog = catalog
        self._sts = sts_client
        self._ledger = ledger
        self._clock = clock
        self._store = secret_store
        self._revocations = Revocations(iam_client, ledger)
        self._secrets: dict[str, datetime] = {}
        self._secrets_lock = threading.Lock()

    def issue(self, invocation: Invocation, tool: Tool | str, scope: Scope | None = None) -> Credential:
        """A credential of the tool's role for one invocation, narrowed to `scope`, good until the tool's credential
        lifetime or the invocation's deadline is over, whichever comes first.

        The right to call models is never part of it. Raises InputError for a tool without other grants, a scope outside
        of them, grants that don't fit a session policy or a user that can't be a tag; BrokerError when STS refuses or does
        not answer.
        """
        tool = self._tool(tool)
        if not needs_credential(tool):
            text = f"{tool.name!r} has no grants" if not tool.grants else f"{tool.name!r} only calls models"
            remedy = "it needs no credential: ask for none; models are called through the model gateway"
            raise InputError([Problem("credential", "tool", text, remedy)])
        now = self._clock()
        ends = min(now + timedelta(seconds=tool.credential_ttl_seconds), invocation.deadline).replace(microsecond=0)
        if ends <= now:
            raise BrokerError(f"invocation {invocation.id} is past its deadline: no credential is issued")
        if not _TAG_VALUE.match(invocation.user):
            remedy = "use at most 256 letters, digits, spaces and _.:/=+-@"
            raise InputError([Problem("invocation", "user", f"{invocation.user!r} can't be a session tag", remedy)])
        policy = session_policy(tool, self._names, ends, scope)
        entry = self._record(invocation, tool, now, ends)
        answer = self._assume(entry, policy)
        return self._hand_out(entry, answer)

    def _tool(self, tool: Tool | str) -> Tool:
        name = tool if isinstance(tool, str) else tool.name
        if not self._catalog.has(name):
            raise InputError(
                [Problem("credential", "tool", f"{name!r} is not in the catalog", "`ringfence catalog list`")]
            )
        return self._catalog.tool(name)

    def _record(self, invocation: Invocation, tool: Tool, now: datetime, ends: datetime) -> Entry:
        """The entry, on record before anybody is asked for anything."""
        role = self._names.iam_arn(f"role/{self._names.tool_role(tool.name)}")
        while True:
            id = new_id()
            name = f"{invocation.id}-{id}"
            entry = Entry(id, invocation.id, tool.name, invocation.user, role, name, now, ends)
            try:
                self._ledger.add(entry)
            except KeyError:
                continue
            return entry

    def _assume(self, entry: Entry, policy: str) -> Mapping[str, Any]:
        tags = {
            INVOCATION_TAG: entry.invocation_id,
            TOOL_TAG: entry.tool,
            USER_TAG: entry.user,
            CREDENTIAL_TAG: entry.id,
        }
        try:
            return self._sts.assume_role(
                RoleArn=entry.role_arn,
                RoleSessionName=entry.session_name,
                Policy=policy,
                DurationSeconds=SESSION_SECONDS,
                SourceIdentity=entry.invocation_id,
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if error.response["ResponseMetadata"].get("HTTPStatusCode", 500) < 500:
                self._ledger.change(entry.id, {State.REQUESTED}, state=State.FAILED, note=code)
            raise BrokerError(f"no credential for {entry.tool}: {error}\n    remedy: {_remedy(code)}") from None
        except BotoCoreError as error:
            # It may have been issued all the same: the entry stays, and is revoked with its invocation.
            raise BrokerError(f"no credential for {entry.tool}: STS did not answer: {error}") from None

    def _hand_out(self, entry: Entry, answer: Mapping[str, Any]) -> Credential:
        given = answer["Credentials"]
        token = str(given["SessionToken"])
        self._mask((given["SecretAccessKey"], token), entry.ends)
        issued = given["Expiration"].astimezone(UTC) - timedelta(seconds=SESSION_SECONDS)
        counted = self._ledger.change(
            entry.id,
            {State.REQUESTED},
            state=State.ISSUED,
            issued=issued,
            access_key_id=given["AccessKeyId"],
            fingerprint=hashlib.sha256(token.encode()).hexdigest(),
        )
        if not counted:
            raise BrokerError(f"credential {entry.id} for {entry.tool} was revoked while it was being issued")
        return Credential(
            entry.id,
            entry.invocation_id,
            entry.tool,
            given["AccessKeyId"],
            given["SecretAccessKey"],
            token,
            entry.role_arn,
            entry.session_name,
            entry.requested,
            entry.ends,
        )

    def tool_secrets(self, invocation: Invocation, tool: Tool | str) -> Mapping[str, str]:
        """The tool's declared secrets that are not AWS's, from the secret store; masked in logs from now on. Others of the
        tool's that the store holds are not handed out.

        Raises SecretUnavailable when one can't be had.
        """
        tool = self._tool(tool)
        if not tool.secrets:
            return {}
        try:
            found = self._store.read(tool.name) if self._store else {}
        except BrokerError as error:
            raise SecretUnavailable(tool.name, str(error)) from None
        if missing := [name for name in tool.secrets if not found.get(name)]:
            where = "the secret store holds" if self._store else "there is no secret store, so it holds"
            text = (
                f"{where} no {', '.join(missing)} of {tool.name}\n    remedy: write it there, beside the tool's others"
            )
            raise SecretUnavailable(tool.name, text)
        given = {name: found[name] for name in tool.secrets}
        self._mask(given.values(), invocation.deadline)
        if large := [name for name, value in given.items() if len(value.encode()) > MAX_SECRET_BYTES]:
            text = f"{', '.join(large)} of {tool.name} has more than {MAX_SECRET_BYTES:,} bytes\n    remedy: store less"
            raise SecretUnavailable(tool.name, text)
        return given

    def revoke(self, invocation_id: str = "", credential_id: str = "", reason: str = "completed") -> int:
        """Revokes all of an invocation's credentials, or one; how many were active.

        Repeating it does no harm, nor does an id that the ledger doesn't know. Raises BrokerError when a role's list
        could not be written; the ledger remembers what is to be revoked.
        """
        if bool(invocation_id) == bool(credential_id):
            raise ValueError("name either an invocation or a credential")
        if credential_id:
            one = self._ledger.get(credential_id)
            wanted = [one] if one is not None and one.state in OPEN else []
        else:
            wanted = self._ledger.open(invocation_id=invocation_id)
        return self._revoke(wanted, reason)

    def revoke_tool(self, tool: Tool | str, reason: str) -> int:
        """Revokes every session of the tool's role issued until now, also those that the ledger doesn't know; how many
        it knew to be active. Raises as `revoke` does."""
        tool = self._tool(tool)
        now = self._clock()
        role = self._names.iam_arn(f"role/{self._names.tool_role(tool.name)}")
        everything = Entry(
            new_id(),
            "",
            tool.name,
            "",
            role,
            EVERY_SESSION,
            now,
            now + LONGEST_SESSION,
            State.REVOKING,
            now,
            revoked_at=now,
        )
        self._ledger.add(everything)
        return self._revoke([*self._ledger.open(role_arn=role)], reason)

    def _revoke(self, entries: Iterable[Entry], reason: str) -> int:
        now = self._clock()
        marked = 0
        pending: dict[str, str] = {}
        for entry in entries:
            if self._ledger.change(entry.id, ACTIVE, state=State.REVOKING, revoked_at=now, note=reason):
                marked += 1
            if entry.state is not State.REVOKED and entry.ends + CLOCK_MARGIN > now:
                pending[entry.role_arn] = entry.tool
        failed: list[str] = []
        for role_arn, tool in pending.items():
            try:
                self._revocations.enforce(role_arn, self._grants(tool), now)
            except BrokerError as error:
                failed.append(str(error))
        if failed:
            raise BrokerError("\n".join(failed))
        return marked

    def _grants(self, tool: str) -> str:
        # A tool that has left the catalog leaves all of the quota to be used by the list.
        return (grants_document(self._catalog.tool(tool), self._names) or "") if self._catalog.has(tool) else ""

    def prune(self) -> Pruned:
        """Revokes what killed brokers left behind, closes what is over, shortens the roles' lists, forgets old records."""
        now = self._clock()
        entries = self._ledger.open()
        orphans = [e for e in entries if e.state is State.REQUESTED and e.requested + ORPHANED_AFTER <= now < e.ends]
        unwritten = [e for e in entries if e.state is State.REVOKING and e.ends + CLOCK_MARGIN > now]
        revoked = self._revoke([*orphans, *unwritten], "orphaned") + len(unwritten)
        lapsed, stale = 0, {}
        for entry in entries:
            if entry.ends + CLOCK_MARGIN <= now and self._ledger.change(entry.id, OPEN, state=State.LAPSED):
                lapsed += 1
                if entry.state in DENIED:
                    stale[entry.role_arn] = entry.tool
        for role_arn, tool in stale.items():
            self._revocations.enforce(role_arn, self._grants(tool), now, rewrite=True)
        return Pruned(revoked, lapsed, self._ledger.forget(now - timedelta(days=KEPT_DAYS)))

    def list(self, active: bool = True) -> list[Entry]:
        """Entries that may still be used; with ``active=False`` every entry that is not closed. Oldest first."""
        now = self._clock()
        entries = self._ledger.open()
        return [entry for entry in entries if entry.state in ACTIVE and entry.ends > now] if active else entries

    def secrets(self) -> tuple[str, ...]:
        """Exact values that must not leave in the clear: what this broker handed out lately. In memory only."""
        now = self._clock()
        with self._secrets_lock:
            self._secrets = {value: until for value, until in self._secrets.items() if until > now}
            return tuple(self._secrets)

    def _mask(self, values: Iterable[str], ends: datetime) -> None:
        with self._secrets_lock:
            for value in values:
                until = ends + _MASKED_AFTER
                self._secrets[value] = max(until, self._secrets.get(value, until))

    def anomalies(self, events: Iterable[Mapping[str, Any]]) -> tuple[anomalies.Anomaly, ...]:
        """What CloudTrail's events say against the ledger; see `anomalies.find`."""
        roles = {self._names.iam_arn(f"role/{self._names.tool_role(tool.name)}") for tool in self._catalog.tools}
        return anomalies.find(events, self._ledger, roles)


def _remedy(code: str) -> str:
    return {
        "AccessDenied": "the tool's role must trust the broker's role: `ringfence up` mends it, `ringfence drift` shows it",
        "PackedPolicyTooLarge": "narrow the scope with fewer, shorter names",
        "InvalidClientTokenId": "the embedded target was started anew: start the broker again",
        "ExpiredToken": "the broker's own credentials ended: start the broker again",
    }.get(code, "`ringfence credentials list` shows what is in use")
