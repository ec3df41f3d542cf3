"""What CloudTrail tells against the ledger: unknown sessions, use after the end, use from two networks.

The same function takes LookupEvents' pages, CloudTrail's log files and EventBridge's events.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ringfence.broker.ledger import Entry, Ledger
from ringfence.broker.model import BrokerError

# CloudTrail's times are whole seconds, and AWS applies a change to a role within seconds.
PROPAGATION = timedelta(seconds=15)
# What counts as one network: an address's provider may move it within.
_V4_BITS, _V6_BITS = 24, 48


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One finding. kind: ``unknown-session``, ``use-after-revoke``, ``use-after-expiry``, ``two-networks`` or
    ``refused-assumption``; allowed: whether AWS let the call through; detail: a sentence for a person."""

    kind: str
    role_arn: str
    session_name: str
    credential_id: str
    invocation_id: str
    event: str
    at: datetime
    source: str
    allowed: bool
    detail: str


def records(source: object) -> Iterator[Mapping[str, Any]]:
    """CloudTrail's records in a LookupEvents answer or event, a log file, an EventBridge event, or a list of any of
    these. What is none of them is left out."""
    if isinstance(source, str | bytes):
        try:
            yield from records(json.loads(source))
        except ValueError:
            return
    elif isinstance(source, Mapping):
        if "eventName" in source and "userIdentity" in source:
            yield source
        for key in ("Records", "Events", "CloudTrailEvent", "detail"):
            if key in source:
                yield from records(source[key])
    elif isinstance(source, Iterable):
        for item in source:
            yield from records(item)


def lookup(client: Any, since: datetime, until: datetime) -> Iterator[Mapping[str, Any]]:
    """Every management event of a boto3 CloudTrail client between two times, page by page. Data events (S3 objects,
    DynamoDB items) are not among them: take those from the trail's log files. Raises BrokerError."""
    try:
        for page in client.get_paginator("lookup_events").paginate(StartTime=since, EndTime=until):
            yield from records(page)
    except (ClientError, BotoCoreError) as error:
        raise BrokerError(f"CloudTrail can't be asked: {error}\n    remedy: give its log files instead") from None


def find(events: Iterable[Mapping[str, Any]], ledger: Ledger, roles: Collection[str]) -> tuple[Anomaly, ...]:
    """Anomalies among events, each session's kind once. roles: ARNs of the tool roles; others' events are left out.

    Notes in the ledger from which network each credential was first used, so that later events are compared with it.
    """
    found: dict[tuple[str, str, str], Anomaly] = {}
    networks: dict[str, str] = {}
    for record in records(events):
        for anomaly in (*_assumption(record, ledger, roles), *_use(record, ledger, roles, networks)):
            found.setdefault((anomaly.kind, anomaly.role_arn, anomaly.session_name), anomaly)
    return tuple(sorted(found.values(), key=lambda item: (item.at, item.session_name, item.kind)))


def _of(record: Mapping[str, Any], *path: str) -> Any:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _time(record: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(str(record.get("eventTime", "")))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _assumption(record: Mapping[str, Any], ledger: Ledger, roles: Collection[str]) -> Iterator[Anomaly]:
    """Somebody became, or tried to become, a tool's role without the ledger's knowledge."""
    role = _of(record, "requestParameters", "roleArn")
    if record.get("eventName") != "AssumeRole" or role not in roles:
        return
    name = str(_of(record, "requestParameters", "roleSessionName") or "")
    entry = _entry(ledger, str(role), name)
    refused = bool(record.get("errorCode"))
    if entry is None:
        kind = "refused-assumption" if refused else "unknown-session"
        yield _anomaly(kind, record, str(role), name, None, "became the tool's role; the ledger knows no such session")
    elif not refused:
        key = str(_of(record, "responseElements", "credentials", "accessKeyId") or "")
        if entry.access_key_id and key != entry.access_key_id:
            yield _anomaly(
                "unknown-session", record, str(role), name, entry, "used a known session's name a second time"
            )


def _use(
    record: Mapping[str, Any], ledger: Ledger, roles: Collection[str], networks: dict[str, str]
) -> Iterator[Anomaly]:
    """A session of a tool's role called something. networks: credential → first network, of this pass."""
    role = _of(record, "userIdentity", "sessionContext", "sessionIssuer", "arn")
    if _of(record, "userIdentity", "type") != "AssumedRole" or role not in roles:
        return
    name = str(_of(record, "userIdentity", "arn") or "").rpartition("/")[2]
    entry = _entry(ledger, str(role), name)
    if entry is None:
        yield _anomaly("unknown-session", record, str(role), name, None, "was used; the ledger knows no such session")
        return
    key = str(_of(record, "userIdentity", "accessKeyId") or "")
    if entry.access_key_id and key and key != entry.access_key_id:
        yield _anomaly(
            "unknown-session", record, str(role), name, entry, "was used with a key that was never handed out"
        )
    at = _time(record)
    if entry.revoked_at is not None and at > entry.revoked_at + PROPAGATION:
        yield _anomaly("use-after-revoke", record, str(role), name, entry, "was used after it was revoked")
    if at > entry.ends + PROPAGATION:
        yield _anomaly("use-after-expiry", record, str(role), name, entry, "was used after its end")
    yield from _networks(record, ledger, str(role), name, entry, networks)


def _networks(
    record: Mapping[str, Any], ledger: Ledger, role: str, name: str, entry: Entry, networks: dict[str, str]
) -> Iterator[Anomaly]:
    network = _network(record)
    if not network:
        return
    # Events come late: the entry may be closed, or forgotten while they are read, and is compared all the same.
    seen = entry.network or networks.get(entry.id) or ledger.note_network(entry.id, network) or network
    networks.setdefault(entry.id, seen)
    if seen != network:
        yield _anomaly("two-networks", record, role, name, entry, f"was used from {network} and from {seen}")


def _network(record: Mapping[str, Any]) -> str:
    """The caller's network; empty when AWS itself called for it."""
    try:
        address = ipaddress.ip_address(str(record.get("sourceIPAddress", "")))
    except ValueError:
        return ""
    bits = _V4_BITS if address.version == 4 else _V6_BITS
    return str(ipaddress.ip_network((address, bits), strict=False))


def _entry(ledger: Ledger, role: str, session_name: str) -> Entry | None:
    entry = ledger.get(session_name.rpartition("-")[2])
    return entry if entry is not None and (entry.session_name, entry.role_arn) == (session_name, role) else None


def _anomaly(kind: str, record: Mapping[str, Any], role: str, name: str, entry: Entry | None, detail: str) -> Anomaly:
    event = f"{str(record.get('eventSource', '')).partition('.')[0]}:{record.get('eventName', '')}"
    return Anomaly(
        kind,
        role,
        name,
        entry.id if entry else "",
        entry.invocation_id if entry else "",
        event,
        _time(record),
        str(record.get("sourceIPAddress", "")),
        not record.get("errorCode"),
        f"session {name} of {role.rpartition('/')[2]} {detail}",
    )
