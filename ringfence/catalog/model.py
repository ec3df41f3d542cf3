"""What a tool may do and who may use it, as declared: tools, capabilities and user roles.

Trust zone: operator. Everything granted at run time descends from these declarations and nothing else.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from ringfence.validation import StrictModel

# 30 keeps `<prefix>-<environment>-tool-<name>` within IAM's 64 characters for a role name.
NAME_PATTERN = r"^[a-z][a-z0-9-]{1,29}$"
Name = Annotated[str, pydantic.Field(pattern=NAME_PATTERN)]
# Characters that STS takes in a session tag (docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html), spaces apart:
# the user is one, and stands in labels, logs and audit records.
USER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:/=+@-]{0,127}$"
NonEmpty = Annotated[str, pydantic.Field(min_length=1, max_length=2000)]

# IAM's grammar of an action: service prefix, then letters, digits and wildcards.
_ACTION = re.compile(r"^[a-z0-9-]+:[A-Za-z0-9*?]+$")
_ARN = re.compile(r"^arn:(\$\{partition\}|aws(-[a-z]+)*):[a-z0-9-]+:[^:]*:[^:]*:.+$")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"^(\*\.)?({_LABEL}\.)+[a-z][a-z0-9-]{{0,61}}[a-z0-9]$")

# IAM session durations below STS's minimum of 900 s are enforced by a Deny after t0+ttl (design, decision 4).
MAX_CREDENTIAL_TTL_SECONDS = 900
# Ports of the egress proxy's tool listeners; one per tool, so that a tool's identity needs no token.
EGRESS_PORT_FIRST, EGRESS_PORT_LAST = 15001, 15999


class Grant(StrictModel):
    """One thing that a tool is allowed: IAM actions on IAM resources, under conditions. Always an Allow."""

    actions: Annotated[tuple[str, ...], pydantic.Field(min_length=1, max_length=100)]
    resources: Annotated[tuple[str, ...], pydantic.Field(min_length=1, max_length=100)]
    conditions: dict[str, dict[str, tuple[str, ...]]] = pydantic.Field(
        default_factory=dict, description="operator → condition key → values, as in an IAM policy"
    )
    reason: NonEmpty = pydantic.Field(description="why the tool needs this grant; shown to reviewers")

    @pydantic.field_validator("actions")
    @classmethod
    def _actions(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _ACTION.match(value):
                raise ValueError(f"{value!r} is not an IAM action | write service:Action, e.g. s3:GetObject")
            if value.split(":", 1)[1].strip("*?") == "":
                raise ValueError(f"{value!r} grants a whole service | list the actions that the tool calls")
        return values

    @pydantic.field_validator("resources")
    @classmethod
    def _resources(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value != "*" and not _ARN.match(value):
                raise ValueError(
                    f"{value!r} is not an ARN | write arn:${{partition}}:service:${{region}}:${{account}}:resource"
                )
        return values

    @pydantic.model_validator(mode="after")
    def _star_needs_a_condition(self) -> Grant:
        if "*" in self.resources and not self.conditions:
            raise ValueError("resource '*' without a condition | name the resources, or add a condition")
        return self


class Egress(StrictModel):
    """Where the tool may connect, through its own listener of the egress proxy. Port 443 with TLS only."""

    domains: Annotated[tuple[str, ...], pydantic.Field(max_length=50)] = ()
    port: Annotated[int, pydantic.Field(ge=EGRESS_PORT_FIRST, le=EGRESS_PORT_LAST)] | None = pydantic.Field(
        default=None, description="listener port at the proxy; derived from the name when absent"
    )

    @pydantic.field_validator("domains")
    @classmethod
    def _domains(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                ipaddress.ip_address(value)
            except ValueError:
                pass
            else:
                raise ValueError(f"{value!r} is an address | name the host: addresses can't be checked against TLS")
            if not _DOMAIN.match(value):
                raise ValueError(f"{value!r} is not a domain | write lower case, e.g. api.example.com or *.example.com")
            if value.startswith("*.") and value.count(".") < 2:
                raise ValueError(f"{value!r} covers a whole top-level domain | name the domains")
            if value.endswith((".amazonaws.com", ".amazonaws.com.cn", ".aws")) or value == "amazonaws.com":
                raise ValueError(
                    f"{value!r} reaches any account's buckets | use grants: AWS is called with the tool's credentials "
                    "through its endpoint"
                )
        return values


class Limits(StrictModel):
    """Hard limits of one invocation of the tool."""

    timeout_seconds: Annotated[int, pydantic.Field(ge=1, le=300)] = 300
    memory_mib: Annotated[int, pydantic.Field(ge=64, le=8192)] = 512
    cpu_millis: Annotated[int, pydantic.Field(ge=50, le=8000)] = 500
    calls_per_minute: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 60


class Argument(StrictModel):
    """What one argument of a tool's calls may be; checked before a call is made. Keys of `Tool.arguments` are the
    arguments' names. Buckets, tables, recipients and hosts follow from grants and domains and need no rule here."""

    pattern: Annotated[str, pydantic.Field(min_length=1, max_length=500)] | None = pydantic.Field(
        default=None, description="regular expression (Python) that the whole value matches"
    )
    enum: Annotated[tuple[NonEmpty, ...], pydantic.Field(min_length=1, max_length=200)] | None = pydantic.Field(
        default=None, description="the values themselves; they stay allowed after untrusted text was read"
    )
    max_length: Annotated[int, pydantic.Field(ge=1, le=1_000_000)] = pydantic.Field(
        default=10_000, description="characters of each string in the argument"
    )
    content: bool = pydantic.Field(
        default=False,
        description="free text that selects nothing (a note, a question); anything else must be named by the user, a "
        "trusted tool or the catalog once untrusted text was read",
    )
    listed_by: NonEmpty | None = pydantic.Field(
        default=None,
        description="value of the tool's argument `action` whose answers name this argument's values, whole texts of them "
        "only; for lists that hold nothing but such names",
    )

    @pydantic.field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error} | correct it") from None
        return value

    @pydantic.model_validator(mode="after")
    def _content_selects_nothing(self) -> Argument:
        if self.content and self.enum is not None:
            raise ValueError(
                "content with enum | an argument with a list of values selects something: leave content out"
            )
        if self.content and self.listed_by is not None:
            raise ValueError("content with listedBy | free text is not chosen from a list: leave one of them out")
        return self


# Keys of a tool's secret in the store.
SecretName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
ArgumentName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a declaration stands: file relative to the catalog's parent, and 1-based line."""

    file: str
    line: int


class Tool(StrictModel):
    """One tool that an agent can call, and the most that it can ever do."""

    name: Name
    description: NonEmpty
    owner: NonEmpty = pydantic.Field(description="team or address that answers for the tool")
    justification: Annotated[str, pydantic.Field(min_length=20, max_length=2000)] = pydantic.Field(
        description="why the tool exists and needs what it is granted"
    )
    review_date: datetime.date = pydantic.Field(description="date by which the grants must be reviewed again")
    grants: tuple[Grant, ...] = ()
    egress: Egress = Egress()
    limits: Limits = Limits()
    arguments: dict[ArgumentName, Argument] = pydantic.Field(
        default_factory=dict, description="name of an argument of the tool's calls → what it may be"
    )
    secrets: Annotated[tuple[SecretName, ...], pydantic.Field(max_length=20)] = pydantic.Field(
        default=(), description="names of what the tool gets out of its own secret in the secret store, e.g. an API key"
    )
    credential_ttl_seconds: Annotated[int, pydantic.Field(ge=60, le=MAX_CREDENTIAL_TTL_SECONDS)] = 300
    output: Literal["trusted", "untrusted"] = pydantic.Field(
        default="untrusted", description="untrusted output taints the conversation and can't widen what is allowed"
    )
    _source: Source = pydantic.PrivateAttr(default=Source("", 0))

    @pydantic.field_validator("secrets")
    @classmethod
    def _secrets_once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value!r} is named twice | name it once")
        return values

    @pydantic.model_validator(mode="after")
    def _lists_exist(self) -> Tool:
        action = self.arguments.get("action")
        actions = action.enum or () if action else ()
        for name, rule in self.arguments.items():
            if rule.listed_by is not None and rule.listed_by not in actions:
                raise ValueError(
                    f"arguments.{name}.listedBy {rule.listed_by!r} is no action of the tool | list it in arguments.action.enum"
                )
        return self

    @property
    def source(self) -> Source:
        """File and line of the declaration."""
        return self._source


class Declared(StrictModel):
    """An entry of a list in a catalog file; it knows where it stands."""

    _source: Source = pydantic.PrivateAttr(default=Source("", 0))

    @property
    def source(self) -> Source:
        """File and line of the declaration."""
        return self._source


class Capability(Declared):
    """A named set of tools, granted to roles as one."""

    name: Name
    description: NonEmpty
    tools: Annotated[tuple[Name, ...], pydantic.Field(min_length=1)]


class UserRole(Declared):
    """Who may use which capabilities. `groups` are the claims of the identity provider that carry the role."""

    name: Name
    description: NonEmpty
    groups: Annotated[tuple[NonEmpty, ...], pydantic.Field(min_length=1)]
    capabilities: tuple[Name, ...] = ()


class User(Declared):
    """A person known without an identity provider: to `ringfence run` and `explain` on an operator's own machine. The
    service takes groups from the caller's token and never from here."""

    name: Annotated[str, pydantic.Field(pattern=USER_PATTERN)]
    groups: Annotated[tuple[NonEmpty, ...], pydantic.Field(min_length=1)]


class Roles(StrictModel):
    """The content of roles.yaml."""

    capabilities: tuple[Capability, ...]
    roles: tuple[UserRole, ...]


class Users(StrictModel):
    """The content of users.yaml, which may be absent."""

    users: tuple[User, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tools (by name), capabilities and user roles of an environment, checked against each other; `users` are those
    declared for an operator's own machine; `folder` is where it was read from."""

    tools: tuple[Tool, ...]
    capabilities: tuple[Capability, ...]
    roles: tuple[UserRole, ...]
    users: tuple[User, ...] = ()
    folder: Path | None = field(default=None, compare=False)

    def tool(self, name: str) -> Tool:
        """The tool of that name. Raises KeyError."""
        return next(tool for tool in self.tools if tool.name == name) if self.has(name) else _missing(name)

    def has(self, name: str) -> bool:
        """Whether a tool of that name is declared."""
        return any(tool.name == name for tool in self.tools)

    def tools_of(self, role_name: str) -> frozenset[str]:
        """Names of the tools that a user role reaches; empty for an unknown role."""
        held = {capability for role in self.roles if role.name == role_name for capability in role.capabilities}
        return frozenset(tool for item in self.capabilities if item.name in held for tool in item.tools)

    def groups_of(self, user: str) -> tuple[str, ...]:
        """Groups of a user declared in users.yaml; empty for any other."""
        return next((item.groups for item in self.users if item.name == user), ())


def _missing(name: str) -> Tool:
    raise KeyError(name)
