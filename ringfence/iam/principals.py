"""Principals worth trying: one for each way in which the statements and conditions at hand can tell principals apart."""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.iam import patterns
from ringfence.iam.automaton import find
from ringfence.iam.budget import Budget, Undecided
from ringfence.iam.model import PrincipalEntry
from ringfence.iam.patterns import ANY, PART, PART_ANY, STAR
from ringfence.iam.request import Principal
from ringfence.iam.rows import Scope, account_of

# An account, a service, a provider and a user that no document names.
_FRESH_ACCOUNTS = ("210987654321", "310987654321", "410987654321")
_FRESH_SERVICE = "some-service.amazonaws.com"
_FRESH_PROVIDER = "some-provider.example.com"
_FRESH_CANONICAL = "f" * 64
MAX_PRINCIPALS = 512
_known_cells: dict[tuple[str, ...], list[str]] = {}
_ARN_KEY, _ACCOUNT_KEY = "aws:principalarn", "aws:principalaccount"


def representatives(scopes: Iterable[Scope], budget: Budget) -> list[Principal]:
    """A principal for each cell. Raises Undecided beyond MAX_PRINCIPALS."""
    listed = list(scopes)
    entries = {entry for scope in listed for entry in (*scope.principals, *scope.not_principals)}
    found: dict[Principal, None] = {}
    for principal in _aws(listed, entries, budget):
        found.setdefault(principal)
    for kind, fresh in (
        ("Service", _FRESH_SERVICE),
        ("Federated", _FRESH_PROVIDER),
        ("CanonicalUser", _FRESH_CANONICAL),
    ):
        for value in (*sorted(e.value for e in entries if e.type == kind and e.value != "*"), fresh):
            found.setdefault(Principal(kind, value))  # type: ignore[arg-type]
    found.setdefault(Principal("Anonymous"))
    if len(found) > MAX_PRINCIPALS:
        raise Undecided(f"the policies tell over {MAX_PRINCIPALS} principals apart")
    return list(found)


def forget() -> None:
    """Forget the cells worked out so far."""
    _known_cells.clear()


def names(scope: Scope, principal: Principal) -> bool:
    """Whether the scope speaks of the principal."""
    if scope.principals:
        return any(_entry_names(entry, principal) for entry in scope.principals)
    return not any(_entry_names(entry, principal) for entry in scope.not_principals)


def _entry_names(entry: PrincipalEntry, principal: Principal) -> bool:
    if entry.type == "*" or (entry.type == "AWS" and entry.value == "*"):
        return True
    if entry.type != principal.type:
        return False
    if entry.value in ("*", principal.value):
        return True
    if entry.type != "AWS":
        return False
    account = account_of(entry.value)
    if account:
        return principal.account == account
    return bool(principal.role_arn) and _without_path(entry.value) == principal.role_arn


def _without_path(arn: str) -> str:
    head, separator, path = arn.partition(":role/")
    return f"{head}{separator}{path.rsplit('/', 1)[-1]}"


def _aws(scopes: list[Scope], entries: set[PrincipalEntry], budget: Budget) -> list[Principal]:
    """AWS principals: those named, and one for each cell of accounts and of patterns on aws:PrincipalArn."""
    named = sorted({entry.value for entry in entries if entry.type == "AWS" and entry.value != "*"})
    accounts = {account_of(value) for value in named} - {""}
    accounts |= {value.split(":")[4] for value in named if value.count(":") >= 5}
    tests = [item for scope in scopes for item in scope.conditions]
    for item in tests:
        if item.key == _ACCOUNT_KEY and item.operator in ("StringLike", "StringFolded"):
            accounts |= {value for value in item.values if value.isdigit()}
    arns = sorted({value for item in tests if item.key == _ARN_KEY for value in item.values})
    arns = [value for value in arns if not patterns.variables_in(value)]
    fresh = [account for account in _FRESH_ACCOUNTS if account not in accounts][:2]
    specific = [value for value in named if not account_of(value) and value.startswith("arn:")]
    found = [Principal("AWS", value) for value in named if not account_of(value)]
    if arns:
        accounts_as_patterns = [f"arn:{PART_ANY}{PART}:iam::{account}:{STAR}" for account in sorted(accounts)]
        cells = _cells((*accounts_as_patterns, *specific, *arns), budget)
        found += [Principal("AWS", _with_plain_account(text, fresh[0])) for text in cells]
    for account in sorted(accounts):
        found.append(Principal("AWS", f"arn:aws:iam::{account}:role/some-role"))
    found.append(Principal("AWS", f"arn:aws:iam::{fresh[0]}:role/some-role"))
    return found


def _cells(values: tuple[str, ...], budget: Budget) -> list[str]:
    """ARNs of roles, users and roots that between them match every set of the patterns that such an ARN can match."""
    if values in _known_cells:
        return _known_cells[values]
    cells: list[str] = []

    def collect(_matched: int, text: str) -> bool:
        cells.append(text)
        return len(cells) > MAX_PRINCIPALS

    for kind in (f"role/{ANY}{STAR}", f"user/{ANY}{STAR}", "root"):
        shape = f"arn:{PART_ANY}{PART}:iam::{PART_ANY}{PART}:{kind}"
        find([(shape,), *((value,) for value in values)], 1, budget, collect)
    if len(_known_cells) > 1_024:
        _known_cells.clear()
    _known_cells[values] = cells
    return cells


def _with_plain_account(arn: str, account: str) -> str:
    """The ARN with a made-up partition and account replaced by ones that could be."""
    parts = arn.split(":", 5)
    if not parts[4].isdigit() or len(parts[4]) != 12:
        parts[4] = account
    if not parts[1].startswith("aws"):
        parts[1] = "aws"
    return ":".join(parts)
