"""Reading policy documents: every problem at once, and no input, however hostile, that ends in anything but InputError.

Strict on purpose: an element, operator or key that IAM wouldn't take is an error here, since a document that is
half understood can't be compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ringfence.errors import InputError, Problem
from ringfence.iam.model import (
    CURRENT_VERSION,
    KINDS,
    LEGACY_VERSION,
    Condition,
    Document,
    Kind,
    PrincipalEntry,
    Statement,
)
from ringfence.iam.operands import operand_problem
from ringfence.iam.patterns import VARIABLE_FIRST

# Far above any quota of a document that AWS stores (the largest, an AWS managed policy, is below 100,000 characters),
# and small enough that everything after parsing stays bounded.
MAX_CHARACTERS = 262_144
MAX_STATEMENTS = 1_000
MAX_ENTRIES = 20_000
MAX_PROBLEMS = 50

OPERATORS: tuple[str, ...] = (
    "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike",
    "StringNotLike", "NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals",
    "NumericGreaterThan", "NumericGreaterThanEquals", "DateEquals", "DateNotEquals", "DateLessThan",
    "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals", "Bool", "BinaryEquals", "IpAddress",
    "NotIpAddress", "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike", "Null",
)  # fmt: skip
_OPERATOR_BY_LOWER = {name.lower(): name for name in OPERATORS}
_QUANTIFIER_BY_LOWER = {"forallvalues": "ForAllValues", "foranyvalue": "ForAnyValue"}
_TOP_ELEMENTS = ("Version", "Id", "Statement")
_STATEMENT_ELEMENTS = (
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
)  # fmt: skip
_PRINCIPAL_TYPES = ("AWS", "Service", "Federated", "CanonicalUser")
_ACTION = re.compile(r"\*+|[A-Za-z0-9*?_-]+:[A-Za-z0-9*?_.-]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Planes 15 and 16, which stand for policy variables in encoded patterns (`patterns`).
_PRIVATE = re.compile(f"[{chr(VARIABLE_FIRST)}-\U0010ffff]")
_ARN_START = "arn:"


class _Duplicate(ValueError):
    """A JSON object that gives one key twice."""


def parse(source: object, kind: Kind | None = None, where: str = "policy", *, empty: bool = False) -> Document:
    """The typed document in `source`: JSON text, UTF-8 bytes, or a mapping already parsed.

    kind: what the document is used as; None infers it (see `infer_kind`). where: what problems name as their place.
    empty: take an empty list of statements too, which grants nothing; IAM stores no such document.
    Raises InputError with every problem found (at most MAX_PROBLEMS) when IAM would not accept the document.
    """
    text, mapping = _load(source, where)
    if kind is not None and kind not in KINDS:
        raise InputError([Problem(where, "kind", f"unknown kind {kind!r}", f"use one of {', '.join(KINDS)}")])
    reader = _Reader(where, text, kind or infer_kind(mapping), empty)
    document = reader.document(mapping)
    if reader.problems:
        raise InputError(sorted(reader.problems[:MAX_PROBLEMS], key=lambda problem: problem.line))
    return document


def infer_kind(mapping: object) -> Kind:
    """`trust` when statements name principals and no resource, `resource` when they name both, else `identity`."""
    statements = mapping.get("Statement") if isinstance(mapping, Mapping) else None
    listed = statements if isinstance(statements, list) else [statements]
    named = [s for s in listed if isinstance(s, Mapping) and ("Principal" in s or "NotPrincipal" in s)]
    if not named:
        return "identity"
    return "resource" if any("Resource" in s or "NotResource" in s for s in named) else "trust"


def _load(source: object, where: str) -> tuple[str, object]:
    if isinstance(source, (bytes, bytearray)):
        try:
            # A byte order mark, which some editors write, is no part of the text.
            source = bytes(source).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                [Problem(where, "", f"isn't UTF-8: byte {error.start} is invalid", "save it as UTF-8")]
            ) from None
    if not isinstance(source, str):
        return "", source
    if len(source) > MAX_CHARACTERS:
        message = f"has {len(source):,} characters; at most {MAX_CHARACTERS:,} are read"
        raise InputError([Problem(where, "", message, "split the policy; IAM would not store it either")])
    try:
        return source, json.loads(source, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError([Problem(where, "", f"isn't JSON: {error.msg}", "correct the JSON", error.lineno)]) from None
    except RecursionError:
        raise InputError([Problem(where, "", "is nested too deeply", "a policy nests at most six levels")]) from None
    except _Duplicate as error:
        key = str(error)
        problem = Problem(where, key, "is given twice in one object", "merge the two", _line(source, key, occurrence=2))
        raise InputError([problem]) from None
    except ValueError as error:
        raise InputError([Problem(where, "", f"isn't JSON: {str(error)[:120]}", "correct the JSON")]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        raise _Duplicate(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return mapping


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _line(text: str, key: str, occurrence: int = 1) -> int:
    """1-based line of the `occurrence`-th mention of the quoted key, 0 when the text doesn't hold it."""
    position = -1
    for _ in range(occurrence):
        position = text.find(json.dumps(key), position + 1)
        if position < 0:
            return 0
    return text.count("\n", 0, position) + 1


def _show(value: object) -> str:
    """A value for a message: short, whatever it is, and without walking into it."""
    if isinstance(value, (str, int, float, bool, type(None))):
        shown = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge number"
        return shown if len(shown) <= 80 else f"{shown[:77]}…"
    return f"a {type(value).__name__}"


class _Reader:
    """Reads one document, collecting problems instead of stopping at the first."""

    def __init__(self, where: str, text: str, kind: Kind, empty: bool):
        self.where, self.text, self.kind, self.empty = where, text, kind, empty
        self.problems: list[Problem] = []
        self.entries = 0
        self.characters = 0

    def problem(self, key: str, message: str, remedy: str, line_key: str = "") -> None:
        if len(self.problems) < MAX_PROBLEMS:
            line = _line(self.text, line_key) if line_key and self.text else 0
            self.problems.append(Problem(self.where, key, message, remedy, line))

    def full(self) -> bool:
        return len(self.problems) >= MAX_PROBLEMS

    def document(self, mapping: object) -> Document:
        empty = Document(self.kind, ())
        if not isinstance(mapping, Mapping):
            self.problem("", f"must be a JSON object, is {_show(mapping)}", 'write {"Version": …, "Statement": […]}')
            return empty
        self.known_elements(mapping, _TOP_ELEMENTS, "")
        version = mapping.get("Version", LEGACY_VERSION)
        if version not in (CURRENT_VERSION, LEGACY_VERSION):
            self.problem("Version", f"{_show(version)} is not a version", f"write {CURRENT_VERSION}", "Version")
            version = CURRENT_VERSION
        identifier = self.text_value(mapping.get("Id", ""), "Id")
        if "Statement" not in mapping:
            self.problem("Statement", "is missing", "a policy needs at least one statement")
            return empty
        listed = mapping["Statement"]
        listed = [listed] if isinstance(listed, Mapping) else listed
        if not isinstance(listed, list):
            self.problem("Statement", f"must be a list of statements, is {_show(listed)}", "give a list", "Statement")
            return empty
        if not listed and not self.empty:
            self.problem("Statement", "is empty", "give at least one statement", "Statement")
            return empty
        if len(listed) > MAX_STATEMENTS:
            message = f"has {len(listed):,} statements; at most {MAX_STATEMENTS:,} are read"
            self.problem("Statement", message, "merge statements or split the policy", "Statement")
            return empty
        statements = []
        for index, value in enumerate(listed):
            statements.append(self.statement(index, value))
            if self.full():
                break
        return Document(self.kind, tuple(s for s in statements if s), version, identifier)

    def known_elements(self, mapping: Mapping[Any, Any], known: tuple[str, ...], prefix: str) -> None:
        for name in mapping:
            if name not in known:
                shown = _show(name)[1:-1] if isinstance(name, str) else _show(name)
                remedy = f"elements here are {', '.join(known)}, spelt exactly so"
                self.problem(
                    f"{prefix}{shown}", "is not an element of a policy", remedy, name if isinstance(name, str) else ""
                )
            if self.full():
                return

    def statement(self, index: int, value: object) -> Statement | None:
        prefix = f"Statement[{index}]"
        if not isinstance(value, Mapping):
            self.problem(prefix, f"must be an object, is {_show(value)}", 'write {"Effect": …, "Action": …}')
            return None
        self.known_elements(value, _STATEMENT_ELEMENTS, f"{prefix}.")
        effect = value.get("Effect")
        if effect not in ("Allow", "Deny"):
            self.problem(f"{prefix}.Effect", f"must be Allow or Deny, is {_show(effect)}", "write Allow or Deny")
            effect = "Deny"
        sid = self.text_value(value.get("Sid", ""), f"{prefix}.Sid")
        actions, not_actions = self.pair(value, prefix, "Action", self.action, required=True)
        has_resource = "Resource" in value or "NotResource" in value
        if self.kind == "trust" and has_resource:
            self.problem(f"{prefix}.Resource", "has no place in a trust policy", "remove it", "Resource")
        resources, not_resources = self.pair(
            value, prefix, "Resource", self.resource, required=self.kind not in ("trust", "resource")
        )
        principals, not_principals = self.principals(value, prefix)
        conditions = self.conditions(value.get("Condition", {}), f"{prefix}.Condition")
        return Statement(
            index, effect, actions, not_actions, resources, not_resources, principals, not_principals, conditions, sid
        )

    def pair(
        self, value: Mapping[str, Any], prefix: str, name: str, read: Callable[[str, str], str], *, required: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The entries of `name` and `Not<name>`, of which a statement gives exactly one (at most one if optional)."""
        given = [element for element in (name, f"Not{name}") if element in value]
        if len(given) == 2:
            self.problem(f"{prefix}.{name}", f"and Not{name} exclude each other", "keep one of the two", f"Not{name}")
        if not given and required:
            self.problem(prefix, f"has neither {name} nor Not{name}", "give one of the two")
        found: dict[str, tuple[str, ...]] = {}
        for element in given:
            key = f"{prefix}.{element}"
            entries = self.strings(value[element], key, element)
            found[element] = tuple(dict.fromkeys(read(entry, key) for entry in entries))
        return found.get(name, ()), found.get(f"Not{name}", ())

    def strings(self, value: object, key: str, line_key: str) -> tuple[str, ...]:
        listed = value if isinstance(value, list) else [value]
        if not listed:
            self.problem(key, "is empty", "give at least one entry, or remove the statement", line_key)
        self.entries += len(listed)
        if self.entries > MAX_ENTRIES:
            self.problem(key, f"the policy has over {MAX_ENTRIES:,} entries", "split the policy", line_key)
            return ()
        return tuple(self.text_value(entry, key) for entry in listed)

    def text_value(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            self.problem(key, f"must be text, is {_show(value)}", "write it as a JSON string")
            return ""
        self.characters += len(value)
        if self.characters > MAX_CHARACTERS:
            self.problem(key, f"the policy has over {MAX_CHARACTERS:,} characters", "split the policy")
            return ""
        if _SURROGATE.search(value):
            self.problem(key, "holds half of a surrogate pair", "write the character itself, in UTF-8")
            return ""
        if _PRIVATE.search(value):
            self.problem(key, "holds a character for private use", "IAM stores no such character; remove it")
            return ""
        return value

    def action(self, value: str, key: str) -> str:
        if not _ACTION.fullmatch(value):
            self.problem(key, f"{_show(value)} is not an action", "write service:Action, e.g. s3:GetObject", value)
        return value

    def resource(self, value: str, key: str) -> str:
        if self.kind != "resource" and not _may_be_arn(value):
            self.problem(
                key, f"{_show(value)} is not an ARN", "write * or arn:partition:service:region:account:…", value
            )
        return value

    def principals(
        self, value: Mapping[str, Any], prefix: str
    ) -> tuple[tuple[PrincipalEntry, ...], tuple[PrincipalEntry, ...]]:
        given = [element for element in ("Principal", "NotPrincipal") if element in value]
        if self.kind not in ("trust", "resource"):
            for element in given:
                remedy = "principals belong in trust and resource policies"
                self.problem(f"{prefix}.{element}", f"has no place in a policy of kind {self.kind}", remedy, element)
            return (), ()
        if len(given) != 1:
            message = "has both Principal and NotPrincipal" if given else "has neither Principal nor NotPrincipal"
            self.problem(prefix, message, "give one of the two")
            return (), ()
        entries = self.principal_entries(value[given[0]], f"{prefix}.{given[0]}")
        return (entries, ()) if given[0] == "Principal" else ((), entries)

    def principal_entries(self, value: object, key: str) -> tuple[PrincipalEntry, ...]:
        if value == "*":
            return (PrincipalEntry("*", "*"),)
        if not isinstance(value, Mapping) or not value:
            self.problem(key, f'must be "*" or an object, is {_show(value)}', 'write {"AWS": "arn:…"}')
            return ()
        entries: list[PrincipalEntry] = []
        for name, listed in value.items():
            if name not in _PRINCIPAL_TYPES:
                self.problem(key, f"{_show(name)} is not a type of principal", f"use {', '.join(_PRINCIPAL_TYPES)}")
                continue
            for entry in self.strings(listed, f"{key}.{name}", name):
                if not entry or ("*" in entry and entry != "*"):
                    remedy = 'name the principal in full, or use "*" with a condition on aws:PrincipalArn'
                    self.problem(f"{key}.{name}", f"{_show(entry)} is not a principal", remedy, entry)
                entries.append(PrincipalEntry(name, entry))
        return tuple(dict.fromkeys(entries))

    def conditions(self, value: object, key: str) -> tuple[Condition, ...]:
        if not isinstance(value, Mapping):
            self.problem(key, f"must be an object, is {_show(value)}", "write {operator: {key: value}}", "Condition")
            return ()
        conditions: list[Condition] = []
        for operator, tests in value.items():
            parsed = _operator(operator)
            if parsed is None:
                self.problem(
                    key,
                    f"{_show(operator)} is not a condition operator",
                    f"use {', '.join(OPERATORS)}",
                    operator if isinstance(operator, str) else "",
                )
            if not isinstance(tests, Mapping):
                self.problem(f"{key}.{_show(operator)}", f"must be an object, is {_show(tests)}", "write {key: value}")
                continue
            for name, listed in tests.items():
                place = f"{key}.{operator}"
                name = self.text_value(name, place)
                values = self.condition_values(listed, f"{place}.{name[:80]}")
                if not name:
                    self.problem(place, "has an empty condition key", "name the key, e.g. aws:SourceIp")
                if parsed is not None:
                    base, quantifier, if_exists = parsed
                    conditions.append(Condition(base, name, values, quantifier, if_exists))
            if self.full():
                break
        for condition in conditions:
            self.condition_operands(condition, key)
        if len({(condition.full_operator, condition.key) for condition in conditions}) < len(conditions):
            self.problem(key, "tests one key twice with one operator, spelt differently", "merge the two", "Condition")
        return tuple(conditions)

    def condition_values(self, value: object, key: str) -> tuple[str, ...]:
        listed = value if isinstance(value, list) else [value]
        spelt: list[object] = []
        for entry in listed[: MAX_ENTRIES + 1]:
            if isinstance(entry, bool):
                entry = "true" if entry else "false"
            elif isinstance(entry, (int, float)) and not (isinstance(entry, int) and entry.bit_length() > 200):
                entry = repr(entry)
            spelt.append(entry)
        return tuple(dict.fromkeys(self.strings(spelt, key, ""))) if spelt else ()

    def condition_operands(self, condition: Condition, key: str) -> None:
        for value in condition.values:
            message, remedy = operand_problem(condition.operator, value)
            if message:
                self.problem(f"{key}.{condition.full_operator}.{condition.key[:80]}", message, remedy, value)


def _operator(name: object) -> tuple[str, str, bool] | None:
    """Canonical base operator, quantifier and IfExists of an operator as written; None when there is none such."""
    if not isinstance(name, str) or len(name) > 64:
        return None
    quantifier, _, rest = name.rpartition(":")
    if quantifier:
        quantifier = _QUANTIFIER_BY_LOWER.get(quantifier.lower(), "?")
        if quantifier == "?":
            return None
    lower = rest.lower()
    if_exists = lower.endswith("ifexists")
    base = _OPERATOR_BY_LOWER.get(lower[:-8] if if_exists else lower)
    # Null asks whether the key is there, so "if it exists" and "for all of its values" would mean nothing.
    if base is None or (base == "Null" and (if_exists or quantifier)):
        return None
    return base, quantifier, if_exists


def _may_be_arn(value: str) -> bool:
    """Whether a resource entry can match an ARN: `*`, or its start, up to a wildcard or variable, agrees with `arn:`."""
    for position, character in enumerate(value[:4]):
        if character in "*?" or value.startswith("${", position):
            return True
        if character != _ARN_START[position]:
            return False
    return len(value) >= 4
