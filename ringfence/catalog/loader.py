"""Reads a catalog folder (`tools/*.yaml`, `roles.yaml`, perhaps `users.yaml`) and reports every problem of every file at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from ringfence import strict_yaml, validation
from ringfence.catalog.model import Catalog, Declared, Roles, Source, Tool, Users
from ringfence.errors import InputError, Problem

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)


def _validated(
    model: type[ModelT], path: Path, where: str, found: list[Problem]
) -> tuple[ModelT | None, dict[strict_yaml.Position, int]]:
    try:
        data: Any
        data, lines = strict_yaml.read(path, where)
        if not isinstance(data, dict):
            raise InputError([Problem(where, "", "is not a mapping", "write `key: value` lines; see the JSON Schema")])
        return model.model_validate(data, strict=False), lines
    except InputError as error:
        found.extend(error.problems)
    except pydantic.ValidationError as error:
        found.extend(validation.problems(error, where, lines))
    return None, {}


def _duplicates(kind: str, names: list[str], where: str) -> list[Problem]:
    return [
        Problem(where, name, f"{kind} {name!r} is declared {count} times", "rename or remove one")
        for name, count in Counter(names).items()
        if count > 1
    ]


def _place(entries: Sequence[Declared], key: str, where: str, lines: dict[strict_yaml.Position, int]) -> None:
    """Tells each entry of the list under `key` where it stands."""
    for index, entry in enumerate(entries):
        entry._source = Source(where, lines.get((key, index), 1))


def _cross_check_users(users: Users, roles: Roles | None, users_file: str) -> list[Problem]:
    found = _duplicates("user", [user.name for user in users.users], users_file)
    carried = {group for role in roles.roles for group in role.groups} if roles else set()
    for user in users.users if roles else ():
        for group in user.groups:
            if group not in carried:
                remedy = f"name it under groups of a role in roles.yaml; known: {', '.join(sorted(carried))}"
                message = f"no role has the group {group!r}"
                found.append(Problem(users_file, f"users.{user.name}", message, remedy, user.source.line))
    return found


def _cross_check(tools: list[Tool], roles: Roles | None, roles_file: str, unreadable_tools: bool) -> list[Problem]:
    found = _duplicates("tool", [tool.name for tool in tools], "tools")
    if roles is None:
        return found
    capabilities = [item.name for item in roles.capabilities]
    found += _duplicates("capability", capabilities, roles_file)
    found += _duplicates("role", [role.name for role in roles.roles], roles_file)
    known = {tool.name for tool in tools}
    for item in roles.capabilities:
        # A reference to a tool whose own file failed to load would only repeat that file's problem.
        for name in () if unreadable_tools else item.tools:
            if name not in known:
                remedy = f"declare it in tools/{name}.yaml; known: {', '.join(sorted(known)) or 'none'}"
                found.append(Problem(roles_file, f"capabilities.{item.name}", f"unknown tool {name!r}", remedy))
    for role in roles.roles:
        for name in role.capabilities:
            if name not in capabilities:
                remedy = f"declare it under capabilities; known: {', '.join(sorted(capabilities))}"
                found.append(Problem(roles_file, f"roles.{role.name}", f"unknown capability {name!r}", remedy))
    return found


def load(path: Path) -> Catalog:
    """The catalog in the folder `path`. Raises InputError with every problem of every file."""
    path = Path(path)
    tools_dir, roles_path = path / "tools", path / "roles.yaml"
    if not tools_dir.is_dir():
        raise InputError([Problem(str(path), "tools", "no such folder", "create tools/*.yaml, or set catalogPath")])
    found: list[Problem] = []
    tools: list[Tool] = []
    files = sorted(tools_dir.glob("*.yaml"))
    stray = sorted(set(tools_dir.iterdir()) - set(files))
    for other in stray:
        where = f"{path.name}/tools/{other.name}"
        found.append(Problem(where, "", "is not a .yaml file, so it would be ignored", "rename or remove it"))
    for file in files:
        where = f"{path.name}/tools/{file.name}"
        tool, lines = _validated(Tool, file, where, found)
        if tool is None:
            continue
        if tool.name != file.stem:
            remedy = f"rename the file to {tool.name}.yaml"
            found.append(Problem(where, "name", f"{tool.name!r} differs from the file's name", remedy))
        tool._source = Source(where, lines.get(("name",), 1))
        tools.append(tool)
    roles_file = f"{path.name}/roles.yaml"
    roles, lines = _validated(Roles, roles_path, roles_file, found)
    if roles:
        _place(roles.capabilities, "capabilities", roles_file, lines)
        _place(roles.roles, "roles", roles_file, lines)
    users: Users | None = None
    users_file, users_path = f"{path.name}/users.yaml", path / "users.yaml"
    if users_path.exists():
        users, lines = _validated(Users, users_path, users_file, found)
        if users:
            _place(users.users, "users", users_file, lines)
            found += _cross_check_users(users, roles, users_file)
    found += _cross_check(tools, roles, roles_file, unreadable_tools=len(tools) < len(files))
    if found or roles is None:
        raise InputError(found)
    return Catalog(tuple(tools), roles.capabilities, roles.roles, users.users if users else (), path)
