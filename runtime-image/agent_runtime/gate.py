"""The gate: whether one tool call may go ahead. Every way of calling a tool passes here.

What it decides by lies outside the model: the tools allowed, the catalog's argument policies, and where a value came
from. Trust zone: sandbox; see `agent_runtime.policy` for what holds when the code in here is hostile.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_runtime import injection
from agent_runtime.declaration import Declaration
from agent_runtime.policy import ArgumentPolicy, shown, strings, url_host
from agent_runtime.taint import Provenance

# Names out of a tool's lists that are kept; what is listed beyond vouches for nothing.
MAX_LISTED = 10_000
_LINK = re.compile(r"https?://[^\s\"'<>()]+", re.I)


@dataclass(frozen=True, slots=True)
class Decision:
    """allowed, or a stable code and a sentence with the remedy. subject: what was asked for, e.g. ``web-fetch.url``."""

    allowed: bool
    code: str = ""
    subject: str = ""
    detail: str = ""


ALLOWED = Decision(True)


@dataclass(frozen=True, slots=True)
class Surface:
    """What the gate knows of a tool's implementation. parameters: names it takes, None when it takes any; fixed: values
    that its own trusted schema lists (``action``: ``list``, ``read``), which no text has to vouch for."""

    parameters: frozenset[str] | None = None
    fixed: Mapping[str, frozenset[str]] | None = None


class Gate:
    """Decides calls of one conversation.

    declarations: the catalog's; a tool without one has no resources, no domains and untrusted output.
    holds_secret: says whether a text holds a secret that was handed to this sandbox.
    """

    def __init__(
        self,
        declarations: Iterable[Declaration],
        allowed_tools: Iterable[str],
        provenance: Provenance,
        holds_secret: Callable[[str], bool] = lambda text: False,
    ):
        self._allowed = frozenset(allowed_tools)
        self._declarations = {item.name: item for item in declarations}
        self._policies = {name: ArgumentPolicy(item) for name, item in self._declarations.items()}
        self._provenance = provenance
        self._holds_secret = holds_secret
        self._suspicion = 0.0
        # (tool, argument) → values that the tool's own lists named.
        self._listed: dict[tuple[str, str], set[str]] = {}

    @property
    def strict(self) -> bool:
        """Whether untrusted text looked like an instruction; from then on links must be vouched for."""
        return self._suspicion >= injection.SUSPICIOUS

    def allows(self, tool: str) -> bool:
        """Whether the task may use the tool at all."""
        return tool in self._allowed

    def declaration(self, tool: str) -> Declaration:
        """The tool's declaration, or the strictest one."""
        return self._declarations.get(tool) or Declaration(tool)

    def saw(
        self, tool: str, output: str, arguments: Mapping[str, Any], value: object = None
    ) -> injection.Signal | None:
        """A tool answered. Untrusted output taints and is scored; the score is returned. value: what the tool returned,
        for arguments that the catalog declares as named by its lists."""
        self._list(tool, arguments, value)
        if self.declaration(tool).trusted_output:
            self._provenance.trusted(output, strings(arguments))
            return None
        return self.saw_untrusted(output)

    def saw_untrusted(self, text: str) -> injection.Signal:
        """Untrusted text reached the model some other way: a tool's description, a document, an error."""
        self._provenance.untrusted()
        signal = injection.score(text)
        self._suspicion = max(self._suspicion, signal.score)
        return signal

    def _list(self, tool: str, arguments: Mapping[str, Any], value: object) -> None:
        """Keeps the names of a list. Whole texts of a structured answer only: an instruction within a name, or text that
        merely looks like a list, names nothing."""
        if isinstance(value, str | bytes):
            return
        for name, rule in self.declaration(tool).arguments.items():
            if rule.listed_by is not None and arguments.get("action") == rule.listed_by:
                known = self._listed.setdefault((tool, name), set())
                known.update(itertools.islice(strings(value), max(0, MAX_LISTED - len(known))))

    def decide(self, tool: str, arguments: Mapping[str, Any], surface: Surface = Surface()) -> Decision:
        """Whether the call may go ahead."""
        if tool not in self._allowed:
            have = ", ".join(sorted(self._allowed)) or "none"
            return _refusal(
                "tool_not_allowed", shown(tool)[1:-1], f"this task has not the tool {shown(tool)} | it has {have}"
            )
        for name in arguments:
            if surface.parameters is not None and name not in surface.parameters:
                known = ", ".join(sorted(surface.parameters)) or "none"
                return _refusal(
                    "argument_unknown", f"{tool}.{shown(name)[1:-1]}", f"the tool takes no {shown(name)} | use {known}"
                )
        if any(self._holds_secret(text) for text in strings(arguments)):
            return _refusal("secret_in_arguments", tool, "an argument holds a credential of this task | never send one")
        policy = self._policies.get(tool) or ArgumentPolicy(Declaration(tool))
        for violation in policy.violations(arguments):
            return _refusal("argument_not_allowed", f"{tool}.{violation.argument}", violation.detail)
        if self._provenance.tainted:
            for name, value in arguments.items():
                refusal = self._taint(tool, name, value, policy, surface)
                if refusal is not None:
                    return refusal
        return ALLOWED

    def _taint(self, tool: str, name: str, value: object, policy: ArgumentPolicy, surface: Surface) -> Decision | None:
        """After untrusted text only values that the user, a trusted tool or the catalog named select anything."""
        fixed = (surface.fixed or {}).get(name, frozenset())
        for text in strings(value):
            if policy.is_content(name):
                if self.strict and (link := self._foreign_link(text, policy)):
                    detail = (
                        f"the text links to {shown(link)}, and what was read looks like an instruction | leave it out"
                    )
                    return _refusal("argument_suspicious", f"{tool}.{name}", detail)
            elif not (
                text in fixed
                or policy.declared(name, text)
                or self._provenance.vouches(text)
                or text in self._listed.get((tool, name), ())
                or (name == "url" and self._reachable(text, policy))
            ):
                detail = f"{shown(text)} comes from untrusted text | let the user's prompt or the catalog name it"
                return _refusal("argument_tainted", f"{tool}.{name}", detail)
        return None

    def _reachable(self, url: str, policy: ArgumentPolicy) -> bool:
        """A page of a host that the catalog itself names. Queries carry data out, so they need somebody to vouch."""
        host = url_host(url)
        return (
            host is not None and not self.strict and "?" not in url and "#" not in url and policy.host_is_declared(host)
        )

    def _foreign_link(self, text: str, policy: ArgumentPolicy) -> str | None:
        for link in _LINK.findall(text):
            host = url_host(link.rstrip(".,;:!?"))
            if host is None or not (policy.host_is_declared(host) or self._provenance.vouches(host)):
                return link
        return None


def _refusal(code: str, subject: str, detail: str) -> Decision:
    return Decision(False, code, subject, detail)
