"""Property paths as Pulumi writes them: ``spec.replicas``, ``tags["a.b/c"]``, ``ingress[0].fromPort``, ``rules[*]``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from ringfence.local.providers.base import UNKNOWN

Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z_$][\w$-]*\Z")
_STEP = re.compile(r'\.?(?:([^.\[\]"]+)|\[(?:(\d+)|(\*)|("(?:[^"\\]|\\.)*"))\])')


@final
class _Missing:
    """Stands for a value that isn't there, which null is not."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()


def format_path(path: Iterable[str | int]) -> str:
    """Write a path so that `parse_path` and the engine read it back."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not _PLAIN_KEY.match(step):
            text += f"[{json.dumps(step)}]"
        else:
            text += f".{step}" if text else step
    return text


def parse_path(text: str) -> Path:
    """Read a path; ``*`` stays the step ``"*"``. Raises ValueError for text that is no path."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f'{text!r} is not a property path: see `name`, `name.key`, `name[0]`, `name["key"]`')
        key, index, star, quoted = match.groups()
        steps.append(key or star or (int(index) if index is not None else json.loads(quoted)))
        position = match.end()
    return tuple(steps)


def get_path(value: Any, path: Path) -> Any:
    """The value at `path`, or MISSING. What lies inside an UNKNOWN is UNKNOWN."""
    for step in path:
        if value is UNKNOWN:
            return UNKNOWN
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not in_list and not (isinstance(value, dict) and step in value):
            return MISSING
        value = value[step]
    return value


def changed_paths(old: Any, new: Any, path: Path = ()) -> list[Path]:
    """Every innermost path at which two values differ. A null and an absent key are the same; UNKNOWN always differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(old) + [key for key in new if key not in old]
        return [found for key in keys for found in changed_paths(old.get(key), new.get(key), (*path, key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for index, (one, other) in pairs for found in changed_paths(one, other, (*path, index))]
    same = old is not UNKNOWN and new is not UNKNOWN and type(old) is type(new) and old == new
    both_numbers = {type(old), type(new)} == {int, float} and old == new
    return [] if same or both_numbers else [path]


def restore_paths(new: Any, old: Any, paths: Iterable[str]) -> Any:
    """A copy of `new` in which every one of `paths` is as in `old`: what the option ``ignoreChanges`` asks for.

    A path that only `new` has is taken out, one that only `old` has is put back when its parent is there. Text that is
    no path is passed over, as the engine does.
    """
    for text in paths:
        try:
            steps = parse_path(text)
        except ValueError:
            continue
        new = _restore(new, old, steps)
    return new


def ignored(new: dict[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any], paths: Iterable[str]) -> Any:
    """`restore_paths` from the old inputs; a whole property that was never declared stays as the state has it, so that
    no default is held against it either."""
    paths = list(paths)
    restored = restore_paths(new, dict(inputs), paths)
    return {key: outputs[key] for key in paths if key in outputs and key not in inputs} | restored


def _restore(new: Any, old: Any, steps: Path) -> Any:
    if not steps:
        return old
    step, rest = steps[0], steps[1:]
    if isinstance(new, dict) and isinstance(old, dict):
        keys = sorted({*new, *old}) if step == "*" else [step]
        result = dict(new)
        for key in keys:
            if rest and (key not in new or key not in old):
                continue
            if key in old:
                result[key] = _restore(new.get(key), old[key], rest)
            else:
                result.pop(key, None)
        return result
    if isinstance(new, list) and isinstance(old, list):
        indexes = range(min(len(new), len(old))) if step == "*" else [step]
        result_list = list(new)
        for index in indexes:
            if isinstance(index, int) and index < len(new) and index < len(old):
                result_list[index] = _restore(new[index], old[index], rest)
        return result_list
    return new
