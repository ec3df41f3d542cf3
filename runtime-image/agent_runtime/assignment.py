"""What a sandbox shall do, out of its environment or, in one that was started ahead of its task, from the gateway."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_runtime.declaration import Declaration
from agent_runtime.errors import AssignmentError
from agent_runtime.shapes import OPENAI, SHAPES

# One file `<tool>.json` each, in the format of the AWS CLI's `credential_process`; `<tool>.secrets`: what else it was given.
CREDENTIALS_FOLDER = Path("/var/run/ringfence/credentials")
_CREDENTIAL_KEYS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
# What the environment holds that no tool and no child process needs to find there.
SECRET_VARIABLES = ("TASK_PROMPT", "CREDENTIALS_TOKEN")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One task. tools: names that the user may use here, with `declarations` for some or all of them; deadline: aware,
    UTC; model_api: key of `SHAPES`; credentials: tool → ``AccessKeyId``, ``SecretAccessKey``, ``SessionToken``;
    tool_secrets: tool → name → text of what else it was given; prices: see `Prices`."""

    prompt: str = field(repr=False)
    tools: tuple[str, ...]
    model: str
    deadline: datetime.datetime
    invocation: str = ""
    declarations: tuple[Declaration, ...] = ()
    credentials: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    tool_secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    prices: Mapping[str, Any] = field(default_factory=dict)
    region: str = ""
    model_api: str = OPENAI

    def secrets(self) -> list[str]:
        """Every value that must never be seen."""
        given = (*self.credentials.values(), *self.tool_secrets.values())
        return [value for held in given for value in held.values()]

    def seconds_left(self, now: datetime.datetime) -> float:
        """Seconds until the deadline; below 0 when it has passed."""
        return (self.deadline - now).total_seconds()


def from_environment(environ: Mapping[str, str], folder: Path = CREDENTIALS_FOLDER) -> Assignment:
    """The task in TASK_PROMPT, ALLOWED_TOOLS (comma-separated or a JSON list), RINGFENCE_MODEL,
    RINGFENCE_MODEL_API, RINGFENCE_DEADLINE, RINGFENCE_TOOLS and the credentials folder. Raises AssignmentError with
    everything that is wrong."""
    problems: list[str] = []
    data = {
        "prompt": environ.get("TASK_PROMPT"),
        "model": environ.get("RINGFENCE_MODEL"),
        "model_api": environ.get("RINGFENCE_MODEL_API"),
        "deadline": environ.get("RINGFENCE_DEADLINE"),
        "invocation": environ.get("RINGFENCE_INVOCATION_ID", ""),
        "region": environ.get("AWS_REGION", ""),
        "tools": _json(environ, "RINGFENCE_TOOLS", [], problems),
        "prices": _json(environ, "RINGFENCE_MODEL_PRICES", {}, problems),
        "credentials": _files(folder, "json", "must be credential_process JSON", problems),
        "secrets": _files(folder, "secrets", "must be a JSON object of texts", problems),
    }
    names = _names(environ.get("ALLOWED_TOOLS", ""), problems)
    return parse(data, names, ports_of(environ, problems), problems)


def ports_of(environ: Mapping[str, str], problems: list[str] | None = None) -> Mapping[str, Any]:
    """Tool → its listener, in RINGFENCE_TOOL_PORTS."""
    return _json(environ, "RINGFENCE_TOOL_PORTS", {}, [] if problems is None else problems)


def parse(
    data: Mapping[str, Any],
    names: tuple[str, ...] | None = None,
    ports: Mapping[str, Any] | None = None,
    found: list[str] | None = None,
) -> Assignment:
    """The task in the gateway's assignment. names: tools allowed, by default those of the assignment; ports: tool → its
    listener, ahead of the declarations'; found: problems known already. Raises AssignmentError with everything that is wrong."""
    problems = list(found or ())
    for key in ("prompt", "model"):
        if not isinstance(data.get(key), str) or not data[key].strip():
            problems.append(f"{key} is missing | send it with the task")
    api = str(data.get("model_api") or OPENAI)
    if api not in SHAPES:
        problems.append(f"model_api {api!r} is no shape of an API | one of {', '.join(SHAPES)}")
    declarations: list[Declaration] = []
    tools = data.get("tools")
    for index, item in enumerate(tools if isinstance(tools, list) else ()):
        try:
            declarations.append(Declaration.parse(_with_port(item, ports or {}), f"tools[{index}]"))
        except (ValueError, TypeError) as error:
            problems.append(str(error))
    if tools is not None and not isinstance(tools, list):
        problems.append("tools is no list | send a list of declarations")
    deadline = _deadline(data.get("deadline"), problems)
    credentials = _checked_credentials(data.get("credentials") or {}, problems)
    secrets = _checked_secrets(data.get("secrets") or {}, problems)
    if problems or deadline is None:
        raise AssignmentError(problems)
    allowed = tuple(item.name for item in declarations) if names is None else names
    undeclared = {name: Declaration.parse({"name": name, "port": (ports or {}).get(name)}) for name in allowed}
    for item in declarations:
        undeclared.pop(item.name, None)
    return Assignment(
        prompt=data["prompt"],
        tools=allowed,
        model=data["model"],
        deadline=deadline,
        invocation=str(data.get("invocation") or ""),
        declarations=(*declarations, *undeclared.values()),
        credentials=credentials,
        tool_secrets=secrets,
        prices=data.get("prices") or {},
        region=str(data.get("region") or ""),
        model_api=api,
    )


def _with_port(item: object, ports: Mapping[str, Any]) -> object:
    """The declaration with its listener as this sandbox reaches it, which only whoever made the sandbox knows."""
    if not isinstance(item, Mapping) or item.get("name") not in ports:
        return item
    return {**item, "port": ports[item["name"]]}


def _names(text: str, problems: list[str]) -> tuple[str, ...]:
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            problems.append("ALLOWED_TOOLS is no list of names | write a,b or a JSON list")
            return ()
        return tuple(names)
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _json(environ: Mapping[str, str], key: str, default: Any, problems: list[str]) -> Any:
    text = environ.get(key)
    if not text:
        return default
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, type(default)):
        problems.append(f"{key} is no JSON {'list' if isinstance(default, list) else 'object'}")
        return default
    return value


def _deadline(value: object, problems: list[str]) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        problems.append("deadline is missing or has no time zone | send RFC 3339, e.g. 2026-11-22T10:00:00Z")
        return None
    return moment.astimezone(datetime.UTC)


def _files(folder: Path, ending: str, remedy: str, problems: list[str]) -> dict[str, Any]:
    """Tool → content of its file with that ending."""
    found: dict[str, Any] = {}
    # A task without credentials has no folder.
    for path in sorted(folder.glob(f"*.{ending}")) if folder.is_dir() else ():
        try:
            found[path.stem] = json.loads(path.read_bytes())
        except (OSError, ValueError):
            problems.append(f"credentials of {path.stem} can't be read | {path.name} {remedy}")
    return found


def _checked_secrets(data: object, problems: list[str]) -> dict[str, dict[str, str]]:
    checked: dict[str, dict[str, str]] = {}
    for tool, held in data.items() if isinstance(data, Mapping) else ():
        if not isinstance(held, Mapping) or not all(isinstance(item, str) for item in (*held, *held.values())):
            problems.append(f"secrets of {tool} are not names and texts")
            continue
        checked[str(tool)] = dict(held)
    return checked


def _checked_credentials(data: object, problems: list[str]) -> dict[str, dict[str, str]]:
    checked: dict[str, dict[str, str]] = {}
    for tool, held in data.items() if isinstance(data, Mapping) else ():
        usable = isinstance(held, Mapping) and all(
            isinstance(held.get(key), str) and held[key] for key in _CREDENTIAL_KEYS
        )
        if not usable:
            problems.append(f"credentials of {tool} lack one of {', '.join(_CREDENTIAL_KEYS)}")
            continue
        checked[str(tool)] = {key: held[key] for key in _CREDENTIAL_KEYS}
    return checked
