"""A task in a file: who asks, for what, with which tools; and, for demonstrations, a script and example data.

    user: ana@example.com
    tools: [s3-report-reader]
    prompt: Summarise the last report.
    script: monthly-report.script.yaml          # steps of the scripted model, beside this file
    seed:                                       # buckets of the embedded account: bucket → key → text
      "example-reports-${account}": {published/2026-10.csv: "region,revenue"}
    probe: {tool: s3-report-reader, bucket: "example-payroll-${account}", key: salaries.csv,
            granted: {bucket: "example-reports-${account}", key: published/2026-10.csv}}
    scopes: {s3-report-reader: {actions: ["s3:GetObject"]}}   # narrows the credential below the tool's grants

`probe` has the control side try, with a credential issued just as for a task, what no task may, after what each may
(`granted`): to show AWS's own refusal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic

from ringfence import strict_yaml, validation
from ringfence.errors import InputError, Problem
from ringfence.iam.tool_documents import expand
from ringfence.names import Names
from ringfence.validation import StrictModel

_Text = Annotated[str, pydantic.Field(min_length=1, max_length=100_000)]


class Place(StrictModel):
    """An object."""

    bucket: _Text
    key: _Text


class Probe(StrictModel):
    """An object that the tool's credentials must not read, and one that they do."""

    tool: _Text
    bucket: _Text
    key: _Text
    granted: Place


class ScopeOf(StrictModel):
    """What a tool's credential is narrowed to."""

    actions: tuple[_Text, ...] | None = None
    resources: tuple[_Text, ...] | None = None


class TaskFile(StrictModel):
    """The file's content, placeholders filled in by `read`."""

    user: _Text
    prompt: _Text
    tools: tuple[_Text, ...] = ()
    model: str = ""
    script: str = ""
    seed: dict[str, dict[str, str]] = pydantic.Field(default_factory=dict)
    probe: Probe | None = None
    scopes: dict[str, ScopeOf] = pydantic.Field(default_factory=dict)


def read(path: Path, names: Names) -> TaskFile:
    """The task in a file, ``${account}`` and the like filled in. Raises InputError with every problem and its line."""
    data, lines = strict_yaml.read(path)
    where = str(path)
    if not isinstance(data, dict):
        raise InputError([Problem(where, "", "is not a task", "write user, prompt and tools", 1)])
    try:
        task = TaskFile.model_validate(_expanded(data, names))
    except pydantic.ValidationError as error:
        raise InputError(validation.problems(error, where, lines)) from None
    if task.script and not (path.parent / task.script).is_file():
        line = lines.get(("script",), 0)
        raise InputError([Problem(where, "script", f"{task.script} is not there", "put it beside this file", line)])
    return task


def _expanded(value: object, names: Names) -> object:
    if isinstance(value, str):
        return expand(value, names)
    if isinstance(value, dict):
        return {expand(str(key), names): _expanded(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, names) for item in value]
    return value
