"""A second reading of IAM's rules, over documents as JSON has them: nothing of it is shared with `ringfence.iam`.

Patterns become regular expressions, so that neither the pattern language nor the matching of the engine is trusted.
Reference: IAM User Guide, "Policy evaluation logic", "Condition operators", "Policy variables".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

Context = Mapping[str, Sequence[str]]
Who = tuple[str, str] | None


@dataclass(frozen=True)
class Asked:
    """A request. context: by lower-case key, absent keys left out; who: type and value of the principal."""

    action: str
    resource: str
    context: Context
    who: Who = None


def allowed(documents: Iterable[Mapping[str, Any]], asked: Asked) -> bool:
    """Whether the union of the documents allows the request."""
    allows = False
    for document in documents:
        variables = document.get("Version") == "2012-10-17"
        for statement in as_list(document["Statement"]):
            if applies(statement, asked, variables):
                if statement["Effect"] == "Deny":
                    return False
                allows = True
    return allows


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def applies(statement: Mapping[str, Any], asked: Asked, variables: bool) -> bool:
    if "Principal" in statement and not _named(statement["Principal"], asked.who):
        return False
    if "NotPrincipal" in statement and _named(statement["NotPrincipal"], asked.who):
        return False
    if not _listed(statement, "Action", asked.action.lower(), {}, variables=False, lower=True):
        return False
    if not _listed(statement, "Resource", asked.resource, asked.context, variables=variables, lower=False):
        return False
    return all(
        _holds(operator, key, as_list(operands), asked.context, variables)
        for operator, tests in statement.get("Condition", {}).items()
        for key, operands in tests.items()
    )


def _listed(
    statement: Mapping[str, Any], element: str, text: str, context: Context, *, variables: bool, lower: bool
) -> bool:
    if element not in statement and f"Not{element}" not in statement:
        return True
    inverted = element not in statement
    entries = as_list(statement[f"Not{element}" if inverted else element])
    found = (_expression(entry.lower() if lower else entry, context, variables=variables) for entry in entries)
    return any(each is not None and each.fullmatch(text) is not None for each in found) != inverted


def _expression(
    pattern: str,
    context: Context,
    *,
    variables: bool,
    wildcards: bool = True,
    arn: bool = False,
    any_case: bool = False,
) -> re.Pattern[str] | None:
    """The pattern as a regular expression, None when one of its variables has no value."""
    made = ""
    colons = place = 0
    while place < len(pattern):
        reference = re.match(r"\$\{([^}]*)\}", pattern[place:]) if variables else None
        if reference:
            value = _value(reference.group(1), context)
            if value is None:
                return None
            made += re.escape(value)
            place += reference.end()
            continue
        character = pattern[place]
        colons += character == ":"
        within = arn and colons < 5 and ":" in pattern[place:]
        if wildcards and character in "*?":
            made += ("[^:]" if within else ".") + ("*" if character == "*" else "")
        else:
            made += re.escape(character)
        place += 1
    return re.compile(made, re.DOTALL | (re.IGNORECASE if any_case else 0))


def _value(reference: str, context: Context) -> str | None:
    if reference in ("*", "?", "$"):
        return reference
    defaulted = re.match(r"([^,]*),\s*'(.*)'\s*$", reference)
    values = context.get((defaulted.group(1) if defaulted else reference).strip().lower(), ())
    if len(values) == 1:
        return values[0]
    return defaulted.group(2) if defaulted and not values else None


def _holds(operator: str, key: str, operands: list[Any], context: Context, variables: bool) -> bool:
    quantifier, _, base = operator.rpartition(":")
    if_exists = base.endswith("IfExists")
    base = base.removesuffix("IfExists")
    given = context.get(key.lower(), ())
    texts = [
        {True: "true", False: "false"}.get(each, str(each)) if isinstance(each, bool) else str(each)
        for each in operands
    ]
    if base == "Null":
        return ("false" if given else "true") in [text.lower() for text in texts]
    negated = "Not" in base
    base = base.replace("Not", "")
    if not given:
        return if_exists or quantifier == "ForAllValues" or (negated and not quantifier)

    def holds(value: str) -> bool:
        return any(_compare(base, text, value, context, variables) for text in texts) != negated

    if not quantifier:
        assert len(given) == 1, "a plain operator on several values has no meaning"
    return all(map(holds, given)) if quantifier == "ForAllValues" else any(map(holds, given))


def _compare(base: str, operand: str, value: str, context: Context, variables: bool) -> bool:
    if base.startswith(("String", "Arn")):
        expression = _expression(
            operand,
            context,
            variables=variables,
            wildcards=base not in ("StringEquals", "StringEqualsIgnoreCase"),
            arn=base.startswith("Arn"),
            any_case="IgnoreCase" in base,
        )
        return expression is not None and expression.fullmatch(value) is not None
    if base == "Bool":
        return operand.lower() == value.lower()
    if base == "IpAddress":
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(operand, strict=False)
        except ValueError:
            return False
    read = _number if base.startswith("Numeric") else _date
    left, right = read(value), read(operand)
    if left is None or right is None:
        return False
    relation = base.removeprefix("Numeric").removeprefix("Date")
    if relation == "Equals":
        return left == right
    return (left == right and relation.endswith("Equals")) or (left < right if "Less" in relation else left > right)


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _date(text: str) -> Decimal | None:
    if re.fullmatch(r"\d{4}", text):
        text += "-01-01"
    elif _number(text) is not None:
        return _number(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return Decimal(str((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))


# Principals


def account(value: str) -> str:
    parts = value.split(":")
    return parts[4] if len(parts) > 4 else ""


def properties(who: Who) -> dict[str, tuple[str, ...]]:
    """The condition keys that follow from who asks."""
    if who is None:
        return {}
    kind, value = who
    if kind == "AWS":
        rest = value.split(":", 5)[5].split("/")
        session = rest[0] == "assumed-role"
        types = {"root": "Account", "user": "User", "federated-user": "FederatedUser"}
        return {
            "aws:principalarn": (f"arn:aws:iam::{account(value)}:role/{rest[1]}" if session else value,),
            "aws:principalaccount": (account(value),),
            "aws:principaltype": (types.get(rest[0], "AssumedRole"),),
            "aws:principalisawsservice": ("false",),
        }
    if kind == "Service":
        return {"aws:principalisawsservice": ("true",), "aws:principalservicename": (value,)}
    if kind == "Anonymous":
        return {"aws:principaltype": ("Anonymous",), "aws:principalisawsservice": ("false",)}
    return {}


def _named(element: Any, who: Who) -> bool:
    if element == "*":
        return True
    assert who is not None
    kind, value = who
    for type_, entries in element.items():
        for entry in as_list(entries):
            if type_ == "AWS" and entry == "*":
                return True
            if type_ == kind and (entry in ("*", value) or (kind == "AWS" and _within(entry, value))):
                return True
    return False


def _within(entry: str, value: str) -> bool:
    if entry == account(value) or entry.endswith(f":iam::{account(value)}:root"):
        return True
    return ":assumed-role/" in value and entry == f"arn:aws:iam::{account(value)}:role/{value.split('/')[1]}"
