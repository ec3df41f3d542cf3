"""Principals worth trying: one for each way in which the statements and conditions at hand can tell principals apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ringfence.iam import patterns
from ringfence.iam.automaton import find
from ringfence.iam.budget import Budget, Undecided
from ringfence.iam.cells import kind_of
from ringfence.iam.conditions import Atom
from ringfence.iam.model import PrincipalEntry
from ringfence.iam.operands import number
from ringfence.iam.patterns import ANY, DIGIT, NAME, NAME_ANY, PART, PART_ANY, STAR
from ringfence.iam.readings import loosened, may_meet, stretches
from ringfence.iam.request import Principal
from ringfence.iam.rows import Scope, account_of

# An account, a service, a provider and a user that no document names.
_FRESH_ACCOUNTS = ("210987654321", "310987654321", "410987654321")
_FRESH_SERVICE = "some-service.amazonaws.com"
_FRESH_PROVIDER = "some-provider.example.com"
_FRESH_CANONICAL = "f" * 64
# Cells of accounts, ARNs and services; beyond, a policy is not decided.
MAX_CELLS = 2_048
_known_cells: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
_ARN_KEY, _ACCOUNT_KEY, _TYPE_KEY = "aws:principalarn", "aws:principalaccount", "aws:principaltype"
_SERVICE_KEY = "aws:principalservicename"
_ACCOUNT = re.compile(r"(?<!\d)\d{12}(?!\d)")
_TWELVE = DIGIT * 12
# Every kind of ARN that aws:PrincipalArn can hold, by what follows the account.
_KINDS = (
    ("iam", f"role/{ANY}{STAR}"),
    ("iam", f"user/{ANY}{STAR}"),
    ("iam", "root"),
    ("sts", f"federated-user/{ANY}{STAR}"),
)
_NAMES = (("iam", "role/some-role"), ("iam", "user/some-user"), ("iam", "root"), ("sts", "federated-user/some-user"))
_HOSTS = (f"{NAME_ANY}{NAME}.amazonaws.com", f"{NAME_ANY}{NAME}.amazonaws.com.cn")


def representatives(scopes: Iterable[Scope], budget: Budget) -> list[Principal]:
    """A principal for each cell. Raises Undecided beyond MAX_CELLS cells, and for conditions that have none."""
    listed = list(scopes)
    entries = {entry for scope in listed for entry in (*scope.principals, *scope.not_principals)}
    atoms = {item for scope in listed for item in scope.conditions}
    texts = _texts(listed)
    found: dict[Principal, None] = {}
    for value in _aws(entries, atoms, texts, budget):
        found.setdefault(Principal("AWS", value))
    for value in _services(entries, atoms, budget):
        found.setdefault(Principal("Service", value))
    for kind, fresh in (("Federated", _FRESH_PROVIDER), ("CanonicalUser", _FRESH_CANONICAL)):
        for value in (*sorted(e.value for e in entries if e.type == kind and e.value != "*"), fresh):
            found.setdefault(Principal(kind, value))  # type: ignore[arg-type]
    found.setdefault(Principal("Anonymous"))
    return list(found)


def forget() -> None:
    """Forget the cells worked out so far."""
    _known_cells.clear()


def names(scope: Scope, principal: Principal) -> bool:
    """Whether the scope speaks of the principal."""
    return scope.principal_index.names(principal) == bool(scope.principals)


def keys_of(scopes: Iterable[Scope]) -> list[str]:
    """The condition keys and variables of the scopes."""
    used = {item.key for scope in scopes for item in scope.conditions}
    return sorted(used | _variables(_texts(scopes)))


def decided_by_cells(scopes: Sequence[Scope]) -> bool:
    """Whether the principals tried are enough where variables are compared with what follows from the principal. They
    are not when a variable is the principal's own ARN, type or service, or where something tells accounts apart in
    other ways than by naming them."""
    atoms = {item for scope in scopes for item in scope.conditions if item.operator != "Null"}
    texts = _texts(scopes)
    if _variables(texts) & {_ARN_KEY, _TYPE_KEY, _SERVICE_KEY}:
        return False
    own = (_ARN_KEY, _ACCOUNT_KEY, _TYPE_KEY, _SERVICE_KEY)
    compared = _variables(value for item in atoms if item.key in own for value in item.values)
    compared |= {item.key for item in atoms if _ACCOUNT_KEY in _variables(item.values)}
    told = {value for item in atoms if item.key in compared for value in item.values}
    for pattern in (text for text in texts if _ACCOUNT_KEY in _variables((text,)) and len(text) > 1):
        for symbol in patterns.variables_in(pattern):
            for other in texts - {pattern}:
                found = stretches(pattern, symbol, loosened(other))
                if found is None:
                    return False
                told |= found
    return all(_names_accounts(text) for text in told)


def _names_accounts(pattern: str) -> bool:
    """Whether the pattern tells accounts apart by naming one or not at all."""
    if _ACCOUNT.fullmatch(pattern) or patterns.includes(pattern, _TWELVE) or not may_meet(pattern, _TWELVE):
        return True
    return len(pattern) == 1 and _variables((pattern,)) == {_ACCOUNT_KEY}


def _variables(texts: Iterable[str]) -> set[str]:
    return {patterns.variable_of(symbol)[0] for text in texts for symbol in patterns.variables_in(text)}


def _texts(scopes: Iterable[Scope]) -> set[str]:
    found = set()
    for scope in scopes:
        found.update(scope.resources)
        for item in scope.conditions:
            found.update(item.values)
    return found


# AWS principals


def _aws(entries: set[PrincipalEntry], atoms: set[Atom], texts: set[str], budget: Budget) -> Iterator[str]:
    """ARNs: those named, and one for each cell of accounts and of patterns on what follows from a principal."""
    named = sorted({entry.value for entry in entries if entry.type == "AWS" and entry.value != "*"})
    yield from (value for value in named if not account_of(value))
    accounts = {account_of(value) for value in named} - {""}
    accounts |= {value.split(":")[4] for value in named if value.count(":") >= 5} - {""}
    if any(patterns.variables_in(text) for text in texts):
        # Whatever a variable is compared with may be the account.
        accounts |= {account for text in texts for account in _ACCOUNT.findall(text)}
    arns = sorted(
        {loosened(value) for item in atoms if item.key == _ARN_KEY and _textual(item) for value in item.values}
    )
    shapes, points = _account_tests(atoms)
    accounts |= points | {shape for shape in shapes if _ACCOUNT.fullmatch(shape)}
    fresh = next(account for account in _more_accounts() if account not in accounts)
    if arns or shapes:
        specific = [value for value in named if not account_of(value) and value.startswith("arn:")]
        by_account = [f"arn:{PART_ANY}{PART}:{PART}::{account}:{STAR}" for account in sorted({*accounts, *shapes})]
        for text in _cells((*by_account, *specific, *arns), _arn_shapes(), budget):
            yield _plausible(text, fresh, (*by_account, *arns))
    kinds = _NAMES if any(item.key in (_TYPE_KEY, _ARN_KEY) for item in atoms) else _NAMES[:1]
    for account in (*sorted(accounts), fresh):
        for service, rest in kinds:
            yield f"arn:aws:{service}::{account}:{rest}"


def _more_accounts() -> Iterator[str]:
    yield from _FRESH_ACCOUNTS
    yield from (f"{number:012d}" for number in range(510987654321, 999_999_999_999))


def _arn_shapes() -> tuple[str, ...]:
    return tuple(f"arn:aws{NAME}:{service}::{_TWELVE}:{rest}" for service, rest in _KINDS)


def _textual(item: Atom) -> bool:
    """Whether the test reads text. Raises Undecided when it reads a principal as a number, date or address."""
    if item.operator == "Null":
        return False
    if kind_of(item.operator) != "text":
        raise Undecided(f"{item.key} is compared as {kind_of(item.operator)}")
    return True


def _account_tests(atoms: set[Atom]) -> tuple[set[str], set[str]]:
    """Patterns on the account, as parts of an ARN; and the accounts at and around thresholds."""
    shapes: set[str] = set()
    points: set[str] = set()
    ordered = False
    for item in atoms:
        if item.key != _ACCOUNT_KEY or item.operator == "Null":
            continue
        kind = kind_of(item.operator)
        if kind == "text":
            shapes |= {_within_part(loosened(value)) for value in item.values}
        elif kind == "Numeric":
            points |= {account for value in item.values for account in _around(value)}
            ordered |= item.operator != "NumericEquals"
        else:
            raise Undecided(f"{item.key} is compared as {kind}")
    if ordered and shapes:
        raise Undecided(f"{_ACCOUNT_KEY} is compared as text and as a number")
    return shapes, points


def _within_part(pattern: str) -> str:
    text = "".join(patterns.folded(token) or token for token in pattern)
    return text.replace(STAR, PART).replace(ANY, PART_ANY)


def _around(value: str) -> Iterator[str]:
    point = number(value)
    if point is not None:
        for account in {int(point) - 1, int(point), int(point) + 1, 0, 999_999_999_999}:
            if 0 <= account <= 999_999_999_999:
                yield f"{account:012d}"


def _plausible(arn: str, fresh: str, told_apart: Sequence[str]) -> str:
    """The ARN in the ordinary partition and in an account of its own, where that changes nothing."""
    parts = arn.split(":", 5)
    for changed in ([parts[0], "aws", *parts[2:4], fresh, parts[5]], [parts[0], "aws", *parts[2:]]):
        text = ":".join(changed)
        if all(patterns.matches(pattern, text) == patterns.matches(pattern, arn) for pattern in told_apart):
            return text
    return arn


# Services


def _services(entries: set[PrincipalEntry], atoms: set[Atom], budget: Budget) -> Iterator[str]:
    named = {entry.value for entry in entries if entry.type == "Service" and entry.value != "*"}
    values = {loosened(value) for item in atoms if item.key == _SERVICE_KEY and _textual(item) for value in item.values}
    yield from sorted(named | {value for value in values if patterns.is_literal(value)})
    if values:
        yield from _cells(tuple(sorted(named | values)), _HOSTS, budget)
    yield _FRESH_SERVICE


def _cells(values: tuple[str, ...], shapes: tuple[str, ...], budget: Budget) -> list[str]:
    """Texts of each shape that between them match every set of the patterns that such a text can match."""
    if (values, shapes) in _known_cells:
        return _known_cells[values, shapes]
    cells: list[str] = []

    def collect(_matched: int, text: str) -> bool:
        cells.append(text)
        return len(cells) > MAX_CELLS

    for shape in shapes:
        find([(shape,), *((value,) for value in values)], 1, budget, collect)
    if len(cells) > MAX_CELLS:
        raise Undecided(f"the policies tell over {MAX_CELLS:,} principals apart")
    if len(_known_cells) > 1_024:
        _known_cells.clear()
    _known_cells[values, shapes] = cells
    return cells
