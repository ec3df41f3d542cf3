"""What a tool's arguments may be: the catalog's own `arguments`, and what follows from its grants and domains.

Argument names with a meaning of their own (whoever implements the tool): ``bucket``, ``key``, ``prefix`` (S3);
``table``, ``index`` (DynamoDB); ``sender``, ``recipients`` (SES); ``model`` (Bedrock); ``url``, ``domain`` (egress).
A check here gives an early, clear refusal; IAM, the broker's session policy and the egress proxy decide for good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from agent_runtime.declaration import ArgumentRule, Declaration

# All arguments of one call together, as JSON would count them, in characters.
MAX_ARGUMENTS_LENGTH = 65_536
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f\\]|[^\x00-\x7f]")
_UNRESOLVED = re.compile(r"\$\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Violation:
    """Why an argument is refused. argument: its name; detail: sentence with the remedy, without the whole value."""

    argument: str
    detail: str


def strings(value: object) -> Iterator[str]:
    """Everything inside a JSON value as text, keys of objects included; nothing for true, false and null."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        yield str(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, bytes | bytearray):
        yield bytes(value).decode("latin-1")
    elif isinstance(value, Iterable):
        for item in value:
            yield from strings(item)
    else:
        # Whatever a framework made of an argument (a date, an enumeration): what it shows is what is checked.
        yield str(value)


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> re.Pattern[str] | None:
    """IAM's wildcards as an expression; None when the pattern holds a policy variable, which nobody here can fill in."""
    if _UNRESOLVED.search(pattern):
        return None
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.compile("".join(parts), re.DOTALL)


def _matches(pattern: str, value: str) -> bool:
    expression = _glob(pattern)
    return expression is not None and expression.fullmatch(value) is not None


def _is_exact(pattern: str) -> bool:
    return not any(char in pattern for char in "*?$")


def shown(value: str) -> str:
    """A value as messages show it: cut, and without control characters."""
    text = "".join(char if char.isprintable() else "?" for char in value)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


class ArgumentPolicy:
    """The argument rules of one tool."""

    def __init__(self, declaration: Declaration):
        self._rules = declaration.arguments
        self._domains = declaration.domains
        self._arns = {
            service: [
                arn.split(":", 5)[5]
                for grant in declaration.grants
                for arn in grant.resources
                if arn.count(":") >= 5 and arn.split(":", 3)[2] == service
            ]
            for service in ("s3", "dynamodb", "bedrock")
        }
        self._prefixes = _condition_values(declaration, "s3:prefix")
        self._senders = _condition_values(declaration, "ses:FromAddress")
        self._recipients = _condition_values(declaration, "ses:Recipients")
        self._services = {action.split(":", 1)[0] for grant in declaration.grants for action in grant.actions}

    def rule(self, argument: str) -> ArgumentRule | None:
        """The catalog's own rule for an argument."""
        return self._rules.get(argument)

    def is_content(self, argument: str) -> bool:
        """Whether the catalog declares the argument free text."""
        rule = self._rules.get(argument)
        return rule is not None and rule.content

    def violations(self, arguments: Mapping[str, Any]) -> Iterator[Violation]:
        """Everything about a call's arguments that the tool's declaration doesn't allow."""
        if sum(len(text) for text in strings(arguments)) > MAX_ARGUMENTS_LENGTH:
            yield Violation("", f"the arguments exceed {MAX_ARGUMENTS_LENGTH} characters | send less")
            return
        for name, value in arguments.items():
            yield from self._own_rule(name, value)
        yield from self._object_store(arguments)
        yield from self._table(arguments)
        yield from self._mail(arguments)
        yield from self._model(arguments)
        yield from self._web(arguments)

    def declared(self, argument: str, value: str) -> bool:
        """Whether the catalog names exactly this value, so that no text has to vouch for it."""
        rule = self._rules.get(argument)
        if rule is not None and rule.enum is not None and value in rule.enum:
            return True
        exact: Iterable[str] = ()
        if argument == "bucket":
            exact = (arn.partition("/")[0] for arn in self._arns["s3"])
        elif argument == "prefix":
            exact = (text.rstrip("*") for text in self._prefixes)
        elif argument == "table":
            exact = (arn.split("/")[1] for arn in self._arns["dynamodb"] if arn.startswith("table/"))
        elif argument == "index":
            exact = (arn.split("/")[3] for arn in self._arns["dynamodb"] if arn.count("/") == 3)
        elif argument == "model":
            exact = (arn.partition("/")[2] for arn in self._arns["bedrock"])
        elif argument == "sender":
            exact = self._senders
        elif argument == "recipients":
            exact = self._recipients
        elif argument == "domain":
            exact = self._domains
        return any(_is_exact(item) and item == value for item in exact)

    def host_is_declared(self, host: str) -> bool:
        """Whether the catalog names this host itself, not by a wildcard."""
        return host in self._domains

    def _own_rule(self, name: str, value: object) -> Iterator[Violation]:
        rule = self._rules.get(name) or ArgumentRule()
        for text in strings(value):
            if len(text) > rule.max_length:
                yield Violation(name, f"{len(text)} characters, of which {rule.max_length} are allowed | send less")
            elif rule.enum is not None and text not in rule.enum:
                yield Violation(name, f"{shown(text)} is not one of the tool's values | use {', '.join(rule.enum)}")
            elif rule.pattern is not None and rule.pattern.fullmatch(text) is None:
                yield Violation(name, f"{shown(text)} has not the tool's form | it is {rule.pattern.pattern}")

    def _object_store(self, arguments: Mapping[str, Any]) -> Iterator[Violation]:
        if "s3" not in self._services:
            return
        buckets = [arn for arn in self._arns["s3"] if "/" not in arn]
        named = list(strings(arguments.get("bucket"))) or [item for item in buckets if _is_exact(item)][:1]
        for bucket in named:
            for key in strings(arguments.get("key")):
                # `..` means nothing to S3 but does to whatever joins paths.
                if ".." in key.split("/") or not any(_matches(arn, f"{bucket}/{key}") for arn in self._arns["s3"]):
                    yield Violation(
                        "key", f"{shown(f'{bucket}/{key}')} is not among the tool's objects | {self._list()}"
                    )
            if "key" not in arguments and not any(_matches(arn, bucket) for arn in buckets):
                yield Violation("bucket", f"{shown(bucket)} is not among the tool's buckets | {self._list()}")
            prefixes = strings(arguments.get("prefix"))
            yield from self._among("prefix", prefixes, self._prefixes) if self._prefixes else ()

    def _table(self, arguments: Mapping[str, Any]) -> Iterator[Violation]:
        if "dynamodb" not in self._services:
            return
        arns = self._arns["dynamodb"]
        tables = list(strings(arguments.get("table")))
        yield from self._among("table", tables, [arn.split("/")[1] for arn in arns if arn.startswith("table/")])
        indexes = [arn.split("/")[3] for arn in arns if arn.count("/") == 3]
        yield from self._among("index", strings(arguments.get("index")), indexes)

    def _mail(self, arguments: Mapping[str, Any]) -> Iterator[Violation]:
        if "ses" not in self._services:
            return
        yield from self._among("sender", strings(arguments.get("sender")), self._senders)
        for recipient in strings(arguments.get("recipients")):
            # One address a string: `a@x, b@y` would match by its end.
            name, _, domain = recipient.partition("@")
            plain = (
                name
                and domain
                and "@" not in domain
                and recipient.isascii()
                and not re.search(r"[\s,;<>()\"\\]", recipient)
            )
            if not plain:
                yield Violation("recipients", f"{shown(recipient)} is not one plain address | write name@domain")
                continue
            yield from self._among("recipients", [recipient], self._recipients)

    def _model(self, arguments: Mapping[str, Any]) -> Iterator[Violation]:
        if "bedrock" in self._services:
            models = [arn.partition("/")[2] for arn in self._arns["bedrock"]]
            yield from self._among("model", strings(arguments.get("model")), models)

    def _web(self, arguments: Mapping[str, Any]) -> Iterator[Violation]:
        urls = list(strings(arguments.get("url")))
        for url in urls:
            host = url_host(url)
            if host is None:
                yield Violation("url", f"{shown(url)} is not a plain https URL | write https://host/path, port 443")
            elif not any(_domain_matches(domain, host) for domain in self._domains):
                yield Violation("url", f"{shown(host)} is not among the tool's domains | {self._web_list()}")
        for domain in strings(arguments.get("domain")) if self._domains else ():
            if not any(_domain_matches(item, domain) for item in self._domains):
                yield Violation("domain", f"{shown(domain)} is not among the tool's domains | {self._web_list()}")

    def _web_list(self) -> str:
        return f"it has {', '.join(self._domains) or 'none'}"

    def _list(self) -> str:
        return f"it has {', '.join(self._arns['s3']) or 'none'}"

    @staticmethod
    def _among(argument: str, values: Iterable[str], patterns: Iterable[str]) -> Iterator[Violation]:
        patterns = tuple(patterns)
        for value in values:
            if not any(_matches(pattern, value) for pattern in patterns):
                have = ", ".join(patterns) or "none"
                yield Violation(argument, f"{shown(value)} is not among the tool's own | it has {have}")


def _condition_values(declaration: Declaration, key: str) -> tuple[str, ...]:
    return tuple(
        value
        for grant in declaration.grants
        for operator, keys in grant.conditions.items()
        # `Null` says whether the key is there, and a negated operator what it must not be.
        if operator != "Null" and "Not" not in operator
        for name, values in keys.items()
        if name.lower() == key.lower()
        for value in values
    )


def _domain_matches(domain: str, host: str) -> bool:
    return host.endswith(domain[1:]) and len(host) > len(domain) - 1 if domain.startswith("*.") else host == domain


def url_host(url: str) -> str | None:
    """The host of a plain https URL in lower case; None for anything that two parsers could read differently: other
    schemes and ports, user names, control characters, backslashes, non-ASCII letters, addresses."""
    if _UNSAFE_IN_URL.search(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme != "https" or not host or "@" in parts.netloc or port not in (None, 443):
        return None
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?", host):
        return None
    return host
