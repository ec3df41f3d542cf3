"""What an API call asks IAM for: actions on resources in a context. What isn't listed here is refused.

Source of actions, resource types and condition keys: AWS Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from moto.utilities.utils import get_partition

from ringfence.local.aws_server.wire import Call

Context = Mapping[str, tuple[str, ...]]


class Unmapped(Exception):
    """What the call would need can't be told, so it is refused. The message is fit for the client."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to IAM. context: the service's own condition keys; the global ones are added by the gate."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)


# From a call to its questions, all of which must be answered with yes. Raises Unmapped.
Question = Callable[["View"], "list[Asked]"]


@dataclass(frozen=True, slots=True)
class Service:
    """questions: by operation; keys: the service's condition keys that the questions' contexts are complete in, lower
    case; one that ends in ``/`` stands for a family. A policy that asks for any other key can't be decided."""

    questions: Mapping[str, Question]
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class View:
    """A call as the questions see it."""

    call: Call

    @property
    def params(self) -> Mapping[str, Any]:
        """The request's members by name."""
        return self.call.params

    def text(self, name: str) -> str:
        """A member that is text; empty when absent. Raises Unmapped for anything else."""
        value = self.params.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Unmapped(f"{name} is not text")
        return value

    def required(self, name: str) -> str:
        """The same, but there must be one."""
        if not self.text(name):
            raise Unmapped(f"{name} is missing")
        return self.text(name)

    def arn(self, service: str, resource: str, *, region: str | None = None, account: str | None = None) -> str:
        """An ARN of the called account and region; pass empty text to leave either out."""
        region = self.call.region if region is None else region
        account = self.call.account if account is None else account
        return f"arn:{get_partition(self.call.region)}:{service}:{region}:{account}:{resource}"


def one(*values: str | None) -> tuple[str, ...]:
    """The values that there are, as a condition key has them."""
    return tuple(value for value in values if value is not None)


def ambiguity(call: Call) -> str:
    """Why moto could read the request differently than it was read here; empty when it can't.

    Two readings of one request would let an allowed call stand for another.
    """
    query = parse_qsl(str(call.environ.get("QUERY_STRING", "")), keep_blank_values=True)
    names = [name for name, _ in query]
    if len(names) != len(set(names)):
        return "a query parameter is given twice"
    if call.protocol in ("query", "ec2"):
        form = [name for name, _ in parse_qsl(call.body.decode("latin-1"), keep_blank_values=True)]
        if names:
            return "parameters stand in the query string instead of in the form"
        return "a form field is given twice" if len(form) != len(set(form)) else ""
    if call.protocol == "json":
        return "there is a query string" if names else ""
    unknown = [name for name in names if name not in _query_names(call) and not name.lower().startswith("x-amz-")]
    return f"{call.name} has no query parameter {unknown[0][:60]!r}" if unknown else ""


def _query_names(call: Call) -> set[str]:
    shape = call.operation.input_shape
    members: Iterable[Any] = shape.members.values() if shape is not None else ()
    literal = str(call.operation.http.get("requestUri", "")).partition("?")[2]
    named = {
        str(member.serialization.get("name"))
        for member in members
        if member.serialization.get("location") == "querystring"
    }
    return named | {part.partition("=")[0] for part in literal.split("&") if part} | {"x-id"}
