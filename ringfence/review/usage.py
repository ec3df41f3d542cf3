"""What was really used, out of IAM's last-accessed data and CloudTrail events, and which grants were not."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.errors import InputError, Problem
from ringfence.review.documents import principal_set
from ringfence.review.facts import PRINCIPAL_KINDS, Slot, Surface, kind_of, last_part

# Event sources whose name isn't the service prefix of the actions.
_PREFIXES = {
    "monitoring": "cloudwatch",
    "email": "ses",
    "tagging": "tag",
    "elasticloadbalancing": "elasticloadbalancing",
}
# Events that are named otherwise than the action that allows them. Source: Service Authorization Reference.
_ACTIONS = {
    "s3:headobject": "s3:getobject",
    "s3:listobjects": "s3:listbucket",
    "s3:listobjectsv2": "s3:listbucket",
    "s3:headbucket": "s3:listbucket",
    "s3:listbuckets": "s3:listallmybuckets",
    "s3:uploadpart": "s3:putobject",
    "s3:createmultipartupload": "s3:putobject",
    "s3:completemultipartupload": "s3:putobject",
    "s3:copyobject": "s3:putobject",
    "s3:deleteobjects": "s3:deleteobject",
    "lambda:invoke": "lambda:invokefunction",
    "bedrock:converse": "bedrock:invokemodel",
    "bedrock:conversestream": "bedrock:invokemodelwithresponsestream",
}


@dataclass
class Usage:
    """What one principal used. actions: lower case; services: used at all; coarse: services of which only the service
    is known, so that none of its actions may be called unused."""

    actions: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    coarse: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class UnusedGrant:
    """An action entry that a principal holds and never used in the time that the data covers."""

    subject: str
    policy: str
    action: str


def read(last_accessed: Iterable[Path], events: Iterable[Path]) -> dict[str, Usage]:
    """Usage by subject. last_accessed: files mapping an ARN or ``role/x`` to a GetServiceLastAccessedDetails answer;
    events: CloudTrail records (``{"Records": […]}``, a list, or a line each). Raises InputError."""
    found: dict[str, Usage] = {}
    for path in last_accessed:
        data = _json(path)
        if not isinstance(data, Mapping):
            raise InputError([Problem(str(path), "", "maps no principals", 'write {"<role ARN>": <answer>, …}')])
        for name, answer in data.items():
            _add_answer(found.setdefault(_subject(str(name)), Usage()), answer)
    for path in events:
        for event in _events(path):
            _add_event(found, event)
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            [Problem(str(path), "", f"is not readable JSON: {error}", "pass the file as AWS gave it")]
        ) from error


def _events(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("{") and "\n{" in text.strip():
            data: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            data = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            [Problem(str(path), "", f"is not readable JSON: {error}", "pass CloudTrail records")]
        ) from error
    records = data.get("Records", [data]) if isinstance(data, Mapping) else data
    for record in records if isinstance(records, list) else []:
        if isinstance(record, Mapping):
            yield record


def _subject(name: str) -> str:
    for kind in PRINCIPAL_KINDS:
        if name.startswith(f"{kind}/") or f":{kind}/" in name:
            return f"{kind}/{last_part(name)}"
    return name


def _add_answer(usage: Usage, answer: Any) -> None:
    services = answer.get("ServicesLastAccessed") if isinstance(answer, Mapping) else None
    for service in services or ():
        prefix = str(service.get("ServiceNamespace", "")).lower()
        tracked = service.get("TrackedActionsLastAccessed") or ()
        if service.get("LastAuthenticated"):
            usage.services.add(prefix)
            if not tracked:
                usage.coarse.add(prefix)
        for action in tracked:
            if action.get("LastAccessedTime"):
                usage.actions.add(f"{prefix}:{action.get('ActionName', '')}".lower())


def _add_event(found: dict[str, Usage], event: Mapping[str, Any]) -> None:
    identity = event.get("userIdentity") or {}
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    arn = str(issuer.get("arn") or identity.get("arn") or "")
    source = str(event.get("eventSource") or "").removesuffix(".amazonaws.com")
    if not arn or not source:
        return
    prefix = _PREFIXES.get(source, source)
    action = f"{prefix}:{event.get('eventName', '')}".lower()
    usage = found.setdefault(_subject(arn), Usage())
    usage.services.add(prefix)
    usage.actions.add(_ACTIONS.get(action, action))


def unused(surface: Surface, usage: Mapping[str, Usage]) -> tuple[UnusedGrant, ...]:
    """The action entries of principals that the data speaks of, none of whose actions was used."""
    found = []
    for subject in surface.subjects():
        if kind_of(subject) not in PRINCIPAL_KINDS or subject not in usage:
            continue
        used = usage[subject]
        for fact, document in principal_set(subject, surface).documents:
            if fact.slot not in (Slot.INLINE, Slot.MANAGED):
                continue
            for statement in document.statements:
                if statement.effect == "Allow":
                    idle = (entry for entry in statement.actions if not _was_used(entry, used))
                    found += [UnusedGrant(subject, fact.key, entry) for entry in idle]
    return tuple(found)


def _was_used(entry: str, used: Usage) -> bool:
    pattern = entry.lower()
    prefix = pattern.partition(":")[0]
    if prefix in used.coarse:
        return True
    escaped = pattern.replace("[", "[[]")
    return any(fnmatch.fnmatchcase(action, escaped) for action in used.actions)
