"""Reads the YAML that people write for Ringfence: plain data only, every position kept, everything ambiguous refused.

Aliases are refused because a few lines of them expand without bound, duplicate keys because the last would silently win.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ringfence.errors import InputError, Problem

# Far above any real catalog or stack file; a file beyond it is a mistake or an attack.
MAX_BYTES = 1_000_000
MAX_DEPTH = 50

Position = tuple[str | int, ...]


class _Reader:
    """Builds plain data from a YAML node tree, noting problems and the line of every path."""

    def __init__(self, where: str):
        self.where = where
        self.problems: list[Problem] = []
        self.lines: dict[Position, int] = {}
        self._constructor = yaml.constructor.SafeConstructor()

    def _refuse(self, node: yaml.Node, key: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(self.where, key, message, remedy, node.start_mark.line + 1))

    def build(self, node: yaml.Node, path: Position = ()) -> Any:
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self._refuse(node, dotted(path), f"not a plain value: {_first_line(error)}", "quote it, or remove the tag")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Position) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                self._refuse(key_node, dotted(path), "a key must be plain text", "write each key out")
                continue
            key = key_node.value
            if key in result:
                self._refuse(key_node, dotted((*path, key)), "the key stands twice", "keep one of them")
                continue
            result[key] = self.build(value_node, (*path, key))
            self.lines[(*path, key)] = key_node.start_mark.line + 1
        return result


def _first_line(error: Exception) -> str:
    problem = getattr(error, "problem", None)
    return str(problem or error).splitlines()[0][:200]


def dotted(path: Position) -> str:
    """``("grants", 0, "actions")`` → ``grants[0].actions``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _guard_events(text: str, where: str) -> None:
    """Refuses anchors, aliases and excessive depth from the event stream, before any tree is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            line = event.start_mark.line + 1
            raise InputError([Problem(where, "", "YAML anchors and aliases are not accepted", "write it out", line)])
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1
                remedy = f"nest at most {MAX_DEPTH} levels"
                raise InputError([Problem(where, "", "nested too deeply", remedy, line)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def parse(text: str, where: str) -> tuple[Any, dict[Position, int]]:
    """Plain data of one YAML document, and the 1-based line of every path in it.

    Raises InputError for syntax errors, anchors, aliases, tags, duplicate keys, several documents, too much depth or size.
    """
    if len(text) > MAX_BYTES:
        raise InputError([Problem(where, "", f"larger than {MAX_BYTES} bytes", "split the file")])
    try:
        _guard_events(text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
        raise InputError([Problem(where, "", f"not YAML: {_first_line(error)}", "mend the syntax", line)]) from None
    if node is None:
        return None, {}
    reader = _Reader(where)
    data = reader.build(node)
    if reader.problems:
        raise InputError(reader.problems)
    return data, reader.lines


def read(path: Path, where: str = "") -> tuple[Any, dict[Position, int]]:
    """`parse` of a file; `where` names it in problems (default: the path as given). Raises InputError also if unreadable."""
    where = where or str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError([Problem(where, "", f"can't be read: {error.strerror}", "check the path")]) from None
    if len(raw) > MAX_BYTES:
        raise InputError([Problem(where, "", f"larger than {MAX_BYTES} bytes", "split the file")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError([Problem(where, "", "not valid UTF-8", "save the file as UTF-8", line)]) from None
    return parse(text, where)
