"""The decision itself. Pure: catalog and claims in, verdict with its reasons out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ringfence.catalog.model import USER_PATTERN, Capability, Catalog, Grant, Source, Tool, UserRole
from ringfence.iam.session_grants import invokes_models, needs_credential, session_grants
from ringfence.invocation import Refusal

# Codes of refusals, for records, metrics and API errors.
USER_INVALID, NO_ROLE = "user_invalid", "no_role"
TOOL_UNKNOWN, TOOL_NOT_ALLOWED, TOOL_REPEATED = "tool_unknown", "tool_not_allowed", "tool_repeated"
# What a caller sent is shown no longer than this.
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one tool is allowed or not. path: role, capability, tool, credential as far as they reach; sources: the
    declarations that decide it, the deciding one first; remedy: whom or what to change, empty when allowed."""

    tool: str
    allowed: bool
    code: str
    text: str
    path: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """allowed: tools that the user may use, in the caller's order; refusals: one for each that isn't, or one for the user.
    An invocation runs only when there is no refusal at all."""

    user: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    allowed: tuple[Tool, ...]
    refusals: tuple[Refusal, ...]
    why: tuple[Reason, ...]

    @property
    def ok(self) -> bool:
        """Whether everything asked for is allowed."""
        return not self.refusals


def shown(text: str) -> str:
    """What a caller sent, printable and short."""
    plain = "".join(char if char.isprintable() else "?" for char in text)
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[: _SHOWN_CHARACTERS - 1]}…"


def _credential(tool: Tool) -> str:
    further = f"; secrets {', '.join(tool.secrets)}" if tool.secrets else ""
    further += "; models through the gateway" if any(map(invokes_models, _actions(tool.grants))) else ""
    if not needs_credential(tool):
        return f"no AWS credential{further}"
    actions = _actions(session_grants(tool))
    return f"credential for {tool.credential_ttl_seconds} s: {', '.join(actions)}{further}"


def _actions(grants: Iterable[Grant]) -> list[str]:
    return sorted({action for grant in grants for action in grant.actions})


def _reach(catalog: Catalog, roles: Sequence[UserRole], tool: str) -> tuple[UserRole, Capability] | None:
    """The first role and capability, in the catalog's order, that lead to the tool."""
    by_name = {item.name: item for item in catalog.capabilities}
    for role in roles:
        for name in role.capabilities:
            capability = by_name.get(name)
            if capability and tool in capability.tools:
                return role, capability
    return None


def _remedy(catalog: Catalog, roles: Sequence[UserRole], tool: Tool) -> tuple[str, tuple[Source, ...]]:
    holders = [item for item in catalog.capabilities if tool.name in item.tools]
    if not holders:
        return "name the tool in a capability of roles.yaml, and have that reviewed", (tool.source,)
    held = [role for role in catalog.roles if any(item.name in role.capabilities for item in holders)]
    sources = (*(role.source for role in roles), holders[0].source)
    mine = ", ".join(role.name for role in roles)
    if held:
        groups = ", ".join(sorted({group for role in held for group in role.groups}))
        return (
            f"ask for a group that carries it ({groups}), or have capability {holders[0].name!r} added to role {mine}",
            sources,
        )
    return f"no role has capability {holders[0].name!r}: have it added to role {mine}", sources


def _reason(catalog: Catalog, roles: Sequence[UserRole], groups: Sequence[str], name: str) -> Reason:
    if not catalog.has(name):
        known = ", ".join(tool.name for tool in catalog.tools) or "none"
        text, remedy = f"no tool {shown(name)!r} is declared in the catalog", f"use one of: {known}"
        return Reason(name, False, TOOL_UNKNOWN, text, remedy=remedy)
    tool = catalog.tool(name)
    if reached := _reach(catalog, roles, name):
        role, capability = reached
        group = next(group for group in groups if group in role.groups)
        path = (
            f"group {group}",
            f"role {role.name}",
            f"capability {capability.name}",
            f"tool {name}",
            _credential(tool),
        )
        return Reason(name, True, "", " → ".join(path), path, (role.source, capability.source, tool.source))
    held = ", ".join(role.name for role in roles)
    remedy, sources = _remedy(catalog, roles, tool)
    text = f"no capability of role {held} has tool {name!r}"
    return Reason(name, False, TOOL_NOT_ALLOWED, text, tuple(f"role {role.name}" for role in roles), sources, remedy)


def _user_reason(catalog: Catalog, user: str, groups: Sequence[str], roles: Sequence[UserRole]) -> Reason | None:
    """Why the user may do nothing at all; None when there is no such reason."""
    if not re.fullmatch(USER_PATTERN, user):
        text = f"{shown(user)!r} is not a user name that credentials can be tagged with"
        return Reason(
            "",
            False,
            USER_INVALID,
            text,
            remedy="1 to 128 letters, digits and _ . : / = + - @, a letter or digit first",
        )
    if roles:
        return None
    text = f"no role has any of the groups of {user}: {shown(', '.join(groups))}" if groups else f"{user} has no groups"
    carried = ", ".join(sorted({group for role in catalog.roles for group in role.groups})) or "none"
    remedy = f"ask for one of the groups {carried}; on an operator's machine, users.yaml says who has which"
    return Reason("", False, NO_ROLE, text, sources=tuple(role.source for role in catalog.roles), remedy=remedy)


def decide(catalog: Catalog, user: str, groups: Iterable[str], tools: Iterable[str]) -> Decision:
    """Whether `user` with these group claims may use `tools`. Names are compared exactly, case included.

    A user without any role is refused even when no tool is asked for. Whatever isn't declared is refused.
    """
    asked, claims = tuple(tools), tuple(groups)
    roles = tuple(role for role in catalog.roles if set(role.groups) & set(claims))
    if refused := _user_reason(catalog, user, claims, roles):
        why = (refused, *(Reason(name, False, refused.code, refused.text, remedy=refused.remedy) for name in asked))
        refusal = Refusal(refused.code, shown(user), f"{refused.text}; {refused.remedy}")
        return Decision(user, claims, (), (), (refusal,), why)
    why, allowed = [], []
    for index, name in enumerate(asked):
        if name in asked[:index]:
            text = f"tool {shown(name)!r} is asked for twice"
            why.append(Reason(name, False, TOOL_REPEATED, text, remedy="name it once"))
            continue
        reason = _reason(catalog, roles, claims, name)
        why.append(reason)
        if reason.allowed:
            allowed.append(catalog.tool(name))
    refusals = tuple(
        Refusal(reason.code, shown(reason.tool), f"{reason.text}; {reason.remedy}")
        for reason in why
        if not reason.allowed
    )
    return Decision(user, claims, tuple(role.name for role in roles), tuple(allowed), refusals, tuple(why))
