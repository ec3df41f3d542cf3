"""What goes in and out of the API, as its OpenAPI description shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic

from ringfence.invocation import MAX_CONVERSATION_USD, MAX_SECONDS
from ringfence.runner.request import MAX_NAME_CHARACTERS, MAX_PROMPT_BYTES, MAX_TOOLS
from ringfence.runner.scopes import MAX_CHARACTERS, MAX_VALUES
from ringfence.service.store import Row

_Values = Annotated[
    list[Annotated[str, pydantic.Field(min_length=1, max_length=MAX_CHARACTERS)]],
    pydantic.Field(min_length=1, max_length=MAX_VALUES),
]
_Name = Annotated[str, pydantic.Field(max_length=MAX_NAME_CHARACTERS)]


class ScopeIn(pydantic.BaseModel):
    """What one tool's credential is narrowed to; a side that is left out stays as the catalog grants it."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    actions: _Values | None = pydantic.Field(default=None, description="IAM actions, e.g. s3:GetObject")
    resources: _Values | None = pydantic.Field(default=None, description="ARNs, wildcards allowed")


class InvocationRequest(pydantic.BaseModel):
    """One agent task."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, pydantic.Field(min_length=1, max_length=MAX_PROMPT_BYTES)] = pydantic.Field(
        description=f"what is to be done; at most {MAX_PROMPT_BYTES} bytes of UTF-8"
    )
    tools: Annotated[list[_Name], pydantic.Field(max_length=MAX_TOOLS)] = pydantic.Field(
        default_factory=list, description="names of catalog tools that the agent may use; see GET /v1/tools"
    )
    model: _Name = pydantic.Field(default="", description="model name; empty takes the service's default")
    conversation: _Name = pydantic.Field(
        default="", description="what the money is counted for; empty: this task alone"
    )
    scopes: Annotated[dict[_Name, ScopeIn], pydantic.Field(max_length=MAX_TOOLS)] = pydantic.Field(
        default_factory=dict, description="tool → what this call narrows its credential to, within the tool's grants"
    )
    max_usd: Annotated[Decimal, pydantic.Field(gt=0, le=MAX_CONVERSATION_USD, strict=False)] = pydantic.Field(
        default=MAX_CONVERSATION_USD, description="most that the conversation may cost in USD"
    )
    timeout_seconds: Annotated[int, pydantic.Field(ge=1, le=MAX_SECONDS)] = pydantic.Field(
        default=MAX_SECONDS, description="wall clock of the task"
    )


class RefusalOut(pydantic.BaseModel):
    """One refused attempt."""

    code: str
    subject: str
    detail: str


class UsageOut(pydantic.BaseModel):
    """What the task used, as the control side counted it."""

    input_tokens: int
    output_tokens: int
    model_calls: int
    tool_calls: int


class ResultOut(pydantic.BaseModel):
    """How a task ended."""

    invocation_id: str
    status: str
    output: str
    error: str
    usage: UsageOut
    cost_usd: str
    audit_id: str = pydantic.Field(description="record of the audit trail")
    duration_seconds: float
    refusals: list[RefusalOut]


class InvocationOut(pydantic.BaseModel):
    """One accepted task. invocation_id: known once it has started; result: once it has ended."""

    id: str
    state: Literal["accepted", "running", "ended"]
    invocation_id: str
    user: str
    tools: list[str]
    accepted_at: datetime
    ended_at: datetime | None
    result: ResultOut | None

    @classmethod
    def of(cls, row: Row) -> InvocationOut:
        """The representation of a row."""
        return cls(
            id=row.id,
            state=row.state,
            invocation_id=row.invocation_id,
            user=row.user,
            tools=list(row.task.get("tools", ())),
            accepted_at=datetime.fromtimestamp(row.accepted, UTC),
            ended_at=datetime.fromtimestamp(row.ended, UTC) if row.ended is not None else None,
            result=ResultOut.model_validate(row.result) if row.result else None,
        )


class InvocationList(pydantic.BaseModel):
    """The caller's last tasks, newest first."""

    invocations: list[InvocationOut]


class ToolOut(pydantic.BaseModel):
    """One tool that the caller may use."""

    name: str
    description: str
    calls_per_minute: int
    timeout_seconds: int
    output: str


class ToolList(pydantic.BaseModel):
    """Who the caller is here, and what that carries."""

    user: str
    roles: list[str]
    tools: list[ToolOut]


class ProblemOut(pydantic.BaseModel):
    """RFC 9457 problem details."""

    model_config = pydantic.ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str = ""


class Health(pydantic.BaseModel):
    """Whether the service lives, or takes requests."""

    status: str
    reasons: list[str] = pydantic.Field(default_factory=list)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of the problems that a route answers with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}
    return {status: {"description": "problem", "content": content} for status in statuses}
