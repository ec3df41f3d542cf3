"""Many comparisons from one stream: a JSON line in, a JSON line out, in order. No line, however bad, stops the stream."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.iam.containment import Decision, Outcome, PermissionSet, Witness, contains
from ringfence.iam.escalation import Escalation, find_escalations
from ringfence.iam.model import Document, Permissions
from ringfence.iam.parsing import parse

# A line holds two permission sets; a role has at most 20 managed policies of 6,144 characters and 10,240 inline.
MAX_LINE_BYTES = 8 * 1024 * 1024
_LAYERS = ("identity", "boundary", "session", "scp")
_IDENTIFIER = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.){0,200}"|-?\d{1,18})')


def compare_lines(source: IO[bytes], *, deadline_s: float, memory_mb: int) -> Iterator[str]:
    """For each line `{"id", "baseline", "candidate"}` one `{"id", "outcome", "witness", "reason", "ms"}`."""

    def answer(line: Mapping[str, Any]) -> dict[str, Any]:
        baseline = permission_set(_member(line, "baseline"), "baseline")
        candidate = permission_set(_member(line, "candidate"), "candidate")
        _comparable(baseline, candidate)
        return decision_mapping(contains(baseline, candidate, deadline_s=deadline_s, memory_mb=memory_mb))

    def failed(reason: str, ms: float) -> dict[str, Any]:
        return {"outcome": Outcome.UNDECIDED.value, "witness": None, "reason": reason, "ms": ms}

    yield from _answers(source, answer, failed)


def escalation_lines(source: IO[bytes]) -> Iterator[str]:
    """For each line `{"id", "policies"}` one `{"id", "escalations", "reason", "ms"}`; null escalations mean unknown. Paths
    that reach only resources written out in full are given too, with the scope `named`."""

    def answer(line: Mapping[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        policies = permission_set(_member(line, "policies"), "policies")
        _names_no_principal(policies)
        found = find_escalations(policies, include_named=True)
        return {"escalations": [escalation_mapping(each) for each in found], "reason": "", "ms": _ms_since(started)}

    def failed(reason: str, ms: float) -> dict[str, Any]:
        return {"escalations": None, "reason": reason, "ms": ms}

    yield from _answers(source, answer, failed)


def permission_set(value: object, where: str) -> PermissionSet:
    """The permission set that a JSON value describes: a document, a list of documents (their union), or an object with
    `identity`, `boundary`, `session` and `scp` (see `Permissions`).

    Raises InputError with every problem.
    """
    if isinstance(value, Mapping) and "identity" in value and "Statement" not in value:
        unknown = [key for key in value if key not in _LAYERS]
        if unknown:
            message = f"{str(unknown[0])[:80]!r} is not a layer"
            raise InputError([Problem(where, "", message, f"layers are {', '.join(_LAYERS)}")])
        boundary, session, levels = value.get("boundary"), value.get("session"), value.get("scp", [])
        return Permissions(
            identity=_documents(value["identity"], f"{where}.identity"),
            boundary=None if boundary is None else parse(boundary, where=f"{where}.boundary", empty=True),
            session=None if session is None else _documents(session, f"{where}.session"),
            scp=tuple(
                _documents(level, f"{where}.scp[{number}]")
                for number, level in enumerate(levels if isinstance(levels, list) else [levels])
            ),
        )
    return _documents(value, where)


def _documents(value: object, where: str) -> tuple[Document, ...]:
    if not isinstance(value, list):
        return (parse(value, where=where, empty=True),)
    found: list[Document] = []
    problems: list[Problem] = []
    for number, each in enumerate(value):
        try:
            found.append(parse(each, where=f"{where}[{number}]", empty=True))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tuple(found)


def _comparable(baseline: PermissionSet, candidate: PermissionSet) -> None:
    """Raises InputError when one speaks of principals and the other doesn't: their requests differ in kind."""
    # A document without statements is of no kind.
    kinds = [{each.kind for each in _all_documents(one) if each.statements} for one in (baseline, candidate)]
    named = [bool(kind & {"trust", "resource"}) for kind in kinds if kind]
    mixed = any(len({each in ("trust", "resource") for each in kind}) > 1 for kind in kinds)
    if mixed or len(set(named)) > 1:
        message = "some documents name principals and others don't, so that they can't be compared"
        raise InputError([Problem("baseline and candidate", "", message, "compare documents of one kind")])


def _names_no_principal(policies: PermissionSet) -> None:
    """Raises InputError for trust and resource policies, which say who may use a thing and not what somebody may do."""
    named = sorted({each.kind for each in _all_documents(policies)} & {"trust", "resource"})
    if named:
        message = f"a {named[0]} policy names principals, so that it is nobody's own permissions"
        raise InputError([Problem("policies", "", message, "give identity policies, boundaries or session policies")])


def _all_documents(of: PermissionSet) -> tuple[Document, ...]:
    if isinstance(of, Document):
        return (of,)
    if isinstance(of, Permissions):
        return tuple(document for _, documents in of.layers() for document in documents)
    return tuple(of)


def _member(line: Mapping[str, Any], name: str) -> object:
    if name not in line:
        raise InputError([Problem("line", name, "is missing", f"give {name}: a policy document or a list of them")])
    return line[name]


def _answers(
    source: IO[bytes],
    answer: Callable[[Mapping[str, Any]], dict[str, Any]],
    failed: Callable[[str, float], dict[str, Any]],
) -> Iterator[str]:
    while True:
        raw = source.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        whole = len(raw) <= MAX_LINE_BYTES
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = source.readline(MAX_LINE_BYTES + 1)
        if not raw.strip():
            continue
        started = time.perf_counter()
        identifier: object = _identifier(raw[:4096])
        try:
            if not whole:
                raise InputError([Problem("line", "", f"is over {MAX_LINE_BYTES:,} bytes", "split the documents")])
            line = _line(raw)
            identifier = line.get("id")
            body = answer(line)
        except RingfenceError as error:
            body = failed(_on_one_line(error), _ms_since(started))
        except Exception as error:
            # A fault of this program must not pass for an answer, nor cost the lines that follow theirs.
            body = failed(f"undecided: internal error, {type(error).__name__}", _ms_since(started))
        yield json.dumps({"id": identifier} | body, ensure_ascii=True)


def _on_one_line(error: RingfenceError) -> str:
    """What is wrong and what to do, without line breaks."""
    if not isinstance(error, InputError):
        return " ".join(str(error).split())
    told = (
        f"{problem}".replace("\n    remedy: ", " (remedy: ") + (")" if problem.remedy else "")
        for problem in error.problems
    )
    return "; ".join(" ".join(each.split()) for each in told)


def _line(raw: bytes) -> Mapping[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ValueError("an object gives one key twice")
        return mapping

    try:
        # The first line may begin with a byte order mark.
        line = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=unique)
    except UnicodeDecodeError:
        raise InputError([Problem("line", "", "isn't UTF-8", "write it as UTF-8")]) from None
    except RecursionError:
        raise InputError([Problem("line", "", "is nested too deeply", "a policy nests at most six levels")]) from None
    except ValueError as error:
        raise InputError([Problem("line", "", f"isn't JSON: {str(error)[:120]}", "correct the JSON")]) from None
    if not isinstance(line, Mapping):
        raise InputError([Problem("line", "", "isn't an object", 'write {"id": …, …}')])
    return line


def _identifier(raw: bytes) -> object:
    """The id of a line that may not be JSON."""
    found = _IDENTIFIER.search(raw.decode("utf-8", "replace"))
    try:
        return json.loads(found.group(1)) if found else None
    except ValueError:
        return None


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def decision_mapping(decision: Decision) -> dict[str, Any]:
    """The JSON form of a decision."""
    return {
        "outcome": decision.outcome.value,
        "witness": None if decision.witness is None else witness_mapping(decision.witness),
        "reason": decision.reason,
        "ms": round(decision.ms, 3),
        "catalogue": decision.catalogue_version,
    }


def witness_mapping(witness: Witness) -> dict[str, Any]:
    """The JSON form of a witness. Context values are lists, also of one."""
    request, at = witness.request, witness.statement
    mapping: dict[str, Any] = {
        "action": request.action,
        "resource": request.resource,
        "context": {key: list(values) for key, values in sorted(request.context.items())},
        "statement": {"layer": at.layer, "document": at.document, "index": at.index, "sid": at.sid},
    }
    if request.principal is not None:
        mapping["principal"] = {"type": request.principal.type, "value": request.principal.value}
    if witness.lost_deny is not None:
        lost = witness.lost_deny
        mapping["lost_deny"] = {"layer": lost.layer, "document": lost.document, "index": lost.index, "sid": lost.sid}
    return mapping


def escalation_mapping(escalation: Escalation) -> dict[str, Any]:
    """The JSON form of one escalation path that is complete."""
    return {
        "id": escalation.path.id,
        "category": escalation.path.category,
        "scope": escalation.scope.value,
        "actions": list(escalation.path.actions),
        "requests": [{"action": request.action, "resource": request.resource} for request in escalation.requests],
    }
