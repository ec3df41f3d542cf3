"""The plain evaluator: one request against one permission set, decided as IAM decides it.

It shares no code with containment beyond the typed documents, so that it can check every witness that containment
finds; and it serves as the authorization check of the embedded AWS. Written to be read, not to be fast.

Reference: IAM User Guide, "Policy evaluation logic", "Condition operators", "Policy variables".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache

from ringfence.iam.model import Condition, Document, Permissions, PrincipalEntry, Statement
from ringfence.iam.request import Principal, Request


class Verdict(StrEnum):
    """What IAM decides. Only `ALLOW` lets a request through."""

    ALLOW = "allow"
    EXPLICIT_DENY = "explicit_deny"
    IMPLICIT_DENY = "implicit_deny"


@dataclass(frozen=True, slots=True)
class Match:
    """A statement that applies to the request. layer: as in `Permissions.layers`; document: place in that layer."""

    layer: str
    document: int
    statement: Statement


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A verdict and its reasons. missing: layers in which no statement allows the request."""

    verdict: Verdict
    allowed_by: tuple[Match, ...] = ()
    denied_by: tuple[Match, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW


def evaluate(permissions: Permissions, request: Request) -> Evaluation:
    """Decide `request` from the principal's own permission set: every layer must allow it, none may deny it."""
    allowed: list[Match] = []
    denied: list[Match] = []
    missing: list[str] = []
    for layer, documents in permissions.layers():
        matches = list(_matching(layer, documents, request))
        denied += [match for match in matches if match.statement.effect == "Deny"]
        allows = [match for match in matches if match.statement.effect == "Allow"]
        allowed += allows
        if not allows:
            missing.append(layer)
    verdict = Verdict.EXPLICIT_DENY if denied else Verdict.IMPLICIT_DENY if missing else Verdict.ALLOW
    return Evaluation(verdict, tuple(allowed), tuple(denied), tuple(missing))


def authorize(
    permissions: Permissions,
    request: Request,
    *,
    resource_policy: Document | None = None,
    same_account: bool = True,
    resource_policy_required: bool = False,
) -> Evaluation:
    """Decide `request` from the principal's permission set together with the policy of the resource.

    same_account: whether principal and resource share an account; across accounts both sides must allow.
    resource_policy_required: the resource's own policy must allow (a role's trust policy, a KMS key policy), whatever
    the identity policies say. Service principals have no permission set: the resource policy alone decides.
    """
    own = evaluate(permissions, request)
    if resource_policy is None and not resource_policy_required:
        return own if same_account else _with(own, Verdict.IMPLICIT_DENY, missing=("resource",))
    documents = (resource_policy,) if resource_policy else ()
    matches = list(_matching("resource", documents, request))
    allows = tuple(match for match in matches if match.statement.effect == "Allow")
    denies = tuple(match for match in matches if match.statement.effect == "Deny")
    merged = Evaluation(own.verdict, own.allowed_by + allows, own.denied_by + denies, own.missing)
    if merged.denied_by:
        return _with(merged, Verdict.EXPLICIT_DENY)
    principal = request.principal
    if principal is not None and principal.type != "AWS":
        return _with(
            merged, Verdict.ALLOW if allows else Verdict.IMPLICIT_DENY, missing=() if allows else ("resource",)
        )
    if not allows and (resource_policy_required or not same_account):
        return _with(merged, Verdict.IMPLICIT_DENY, missing=(*own.missing, "resource"))
    missing = set(own.missing)
    if same_account and principal is not None:
        granted = {_grant(match.statement, principal) for match in allows}
        # A grant to the role counts as one of its identity policies; a grant to the user or the session itself also
        # passes the boundary and the session policy. No grant passes an SCP.
        if granted & {"role", "direct"}:
            missing.discard("identity")
        if "direct" in granted:
            missing -= {"boundary", "session"}
    remaining = tuple(layer for layer in own.missing if layer in missing)
    return _with(merged, Verdict.IMPLICIT_DENY if remaining else Verdict.ALLOW, missing=remaining)


def _with(evaluation: Evaluation, verdict: Verdict, *, missing: tuple[str, ...] | None = None) -> Evaluation:
    left = evaluation.missing if missing is None else missing
    return Evaluation(verdict, evaluation.allowed_by, evaluation.denied_by, left)


def _grant(statement: Statement, principal: Principal) -> str:
    """How a resource policy's statement names the principal: `direct`, `role` or `account` (which only delegates)."""
    values = {entry.value for entry in statement.principals}
    everyone = "*" in values
    if principal.value in values or (everyone and not principal.role_arn):
        return "direct"
    if everyone or principal.role_arn in values:
        return "role"
    # A role's own ARN is seen without its path in a session; any other entry that matched names the account.
    return "role" if any(_same_role(value, principal.role_arn) for value in values) else "account"


def _matching(layer: str, documents: Iterable[Document], request: Request) -> Iterator[Match]:
    for place, document in enumerate(documents):
        for statement in document.statements:
            if statement_matches(statement, request, variables=document.variables_enabled):
                yield Match(layer, place, statement)


def statement_matches(statement: Statement, request: Request, *, variables: bool) -> bool:
    """Whether the statement applies to the request, whatever its effect. variables: its document has policy variables."""
    return (
        _principal_matches(statement, request.principal)
        and _action_matches(statement, request.action)
        and _resource_matches(statement, request, variables)
        and all(_condition_holds(condition, request, variables) for condition in statement.conditions)
    )


# Principals


def _principal_matches(statement: Statement, principal: Principal | None) -> bool:
    if not statement.principals and not statement.not_principals:
        return True
    if principal is None:
        return False
    if statement.principals:
        return any(_entry_names(entry, principal) for entry in statement.principals)
    return not any(_entry_names(entry, principal) for entry in statement.not_principals)


def _entry_names(entry: PrincipalEntry, principal: Principal) -> bool:
    if entry.type == "*" or (entry.type == "AWS" and entry.value == "*"):
        return True
    if entry.type != principal.type:
        return False
    if entry.value in ("*", principal.value):
        return True
    if entry.type != "AWS":
        return False
    if entry.value == principal.account or entry.value.endswith(f":iam::{principal.account}:root"):
        return bool(principal.account)
    return _same_role(entry.value, principal.role_arn)


def _same_role(role: str, session_role: str) -> bool:
    """Whether `role`, perhaps with a path, is the role of a session, whose ARN leaves the path out."""
    if not session_role or ":role/" not in role:
        return False
    head, _, path = role.partition(":role/")
    return f"{head}:role/{path.rsplit('/', 1)[-1]}" == session_role


# Actions and resources


def _action_matches(statement: Statement, action: str) -> bool:
    lower = action.lower()
    named = any(_names_action(pattern.lower(), lower) for pattern in statement.actions or statement.not_actions)
    return named if statement.actions else not named


def _names_action(pattern: str, action: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == action
    return _glob(_tokens(pattern), action)


def _resource_matches(statement: Statement, request: Request, variables: bool) -> bool:
    def named(patterns: tuple[str, ...]) -> bool:
        return any(
            tokens is not None and _glob(tokens, request.resource)
            for tokens in (_resolve(pattern, request, variables) for pattern in patterns)
        )

    if statement.resources:
        return named(statement.resources)
    return not statement.not_resources or not named(statement.not_resources)


# Patterns: a token is a literal character, or one of the two wildcards

_ANY, _STAR = 0, 1
_Token = str | int


@lru_cache(maxsize=16_384)
def _tokens(pattern: str) -> tuple[_Token, ...]:
    return tuple({"*": _STAR, "?": _ANY}.get(character, character) for character in pattern)


def _resolve(pattern: str, request: Request, variables: bool) -> Sequence[_Token] | None:
    """The pattern with its variables replaced by the request's values, taken literally; None when one has no value."""
    if not variables or "${" not in pattern:
        return _tokens(pattern)
    tokens: list[_Token] = []
    rest = pattern
    while True:
        before, opening, after = rest.partition("${")
        name, closing, following = after.partition("}")
        if not opening or not closing:
            return [*tokens, *_tokens(rest)]
        value = _variable(name, request)
        if value is None:
            return None
        tokens += [*_tokens(before), *value]
        rest = following


def _variable(name: str, request: Request) -> str | None:
    """The value of `${name}`: an escaped character, the key's single value, or the default after a comma."""
    if name in ("*", "?", "$"):
        return name
    key, comma, default = name.partition(",")
    values = request.values.get(key.strip().lower(), ())
    if len(values) == 1:
        return values[0]
    default = default.strip()
    quoted = comma and len(default) >= 2 and default[0] == default[-1] == "'"
    return default[1:-1] if quoted and not values else None


def _glob(tokens: Sequence[_Token], text: str) -> bool:
    """Whether the pattern matches the whole text; a star is retried from one character further on each failure."""
    position = place = 0
    star, resume = -1, 0
    while position < len(text):
        if place < len(tokens) and tokens[place] == _STAR:
            star, resume = place, position
            place += 1
        elif place < len(tokens) and tokens[place] in (_ANY, text[position]):
            place += 1
            position += 1
        elif star >= 0:
            resume += 1
            place, position = star + 1, resume
        else:
            return False
    return all(token == _STAR for token in tokens[place:])


def _arn(tokens: Sequence[_Token], text: str) -> bool:
    """Whether an ARN pattern matches part by part: a wildcard stays within its part, except in the last."""
    parts: list[list[_Token]] = [[]]
    for piece in tokens:
        if piece == ":" and len(parts) < 6:
            parts.append([])
        else:
            parts[-1].append(piece)
    values = text.split(":", len(parts) - 1)
    return len(values) == len(parts) and all(_glob(part, value) for part, value in zip(parts, values, strict=True))


# Conditions

_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


def _condition_holds(condition: Condition, request: Request, variables: bool) -> bool:
    values = request.values.get(condition.key.lower(), ())
    if condition.operator == "Null":
        return ("false" if values else "true") in {operand.lower() for operand in condition.values}
    negated = condition.operator in _NEGATED
    if not values:
        if condition.if_exists or condition.quantifier == "ForAllValues":
            return True
        return negated and condition.quantifier == ""
    base = _NEGATED.get(condition.operator, condition.operator)

    def satisfies(value: str) -> bool:
        return any(_compare(base, operand, value, request, variables) for operand in condition.values) != negated

    # A plain operator on several values is not defined by IAM; here as for its single-valued use: any value that
    # matches makes a positive operator hold and a negated one fail.
    if condition.quantifier == "ForAllValues" or (condition.quantifier == "" and negated):
        return all(satisfies(value) for value in values)
    return any(satisfies(value) for value in values)


def _compare(operator: str, operand: str, value: str, request: Request, variables: bool) -> bool:
    """Whether one value of the request satisfies one operand of a positive operator."""
    if operator in ("StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"):
        tokens = _resolve(operand, request, variables)
        if tokens is None:
            return False
        if operator == "StringLike":
            return _glob(tokens, value)
        if operator in ("ArnEquals", "ArnLike"):
            return _arn(tokens, value)
        text = "".join(
            {_ANY: "?", _STAR: "*"}.get(token, token) if isinstance(token, int) else token for token in tokens
        )
        return text.lower() == value.lower() if operator == "StringEqualsIgnoreCase" else text == value
    if operator == "Bool":
        return operand.lower() == value.lower()
    if operator == "IpAddress":
        return _in_network(operand, value)
    if operator == "BinaryEquals":
        return operand == value
    left, right = (
        (_number(value), _number(operand)) if operator.startswith("Numeric") else (_date(value), _date(operand))
    )
    if left is None or right is None:
        return False
    relation = operator.removeprefix("Numeric").removeprefix("Date")
    return {
        "Equals": left == right,
        "LessThan": left < right,
        "LessThanEquals": left <= right,
        "GreaterThan": left > right,
        "GreaterThanEquals": left >= right,
    }[relation]


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _date(text: str) -> Decimal | None:
    if len(text) == 4 and text.isdigit():
        text += "-01-01"
    elif (seconds := _number(text)) is not None:
        return seconds
    try:
        moment = datetime.fromisoformat(text)
        return Decimal(str((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return None


def _in_network(operand: str, value: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(operand, strict=False)
    except ValueError:
        return False
