"""The catalog's example tools as they run in a sandbox: name → what makes it. Others are added by an image of one's own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_runtime.assignment import Assignment
from agent_runtime.gateway import GatewayClient
from agent_runtime.tools.surroundings import Surroundings

if TYPE_CHECKING:
    from agent_runtime.executor import InstrumentedAgentExecutor

# Loaded when the task has the tool: boto3 takes a good part of a second inside a sandbox.
BUILT_IN = {
    "s3-report-reader": "agent_runtime.tools.s3_report_reader",
    "ticket-store": "agent_runtime.tools.ticket_store",
    "email-notifier": "agent_runtime.tools.email_notifier",
    "web-fetch": "agent_runtime.tools.web_fetch",
    "model-call": "agent_runtime.tools.model_call",
}


def register(
    executor: InstrumentedAgentExecutor,
    assignment: Assignment,
    client: GatewayClient,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Registers the built-in tools that the task may use. A tool without an implementation here is left out; the gate
    refuses calls of it by name."""
    for name in assignment.tools:
        if name in BUILT_IN:
            surroundings = Surroundings(
                declaration=executor.gate.declaration(name),
                credentials=assignment.credentials.get(name),
                endpoint=environ.get("AWS_ENDPOINT_URL") or None,
                region=assignment.region or environ.get("AWS_REGION") or "us-east-1",
                proxy_host=environ.get("RINGFENCE_PROXY_HOST") or None,
                client=client,
                executor=executor,
                secrets=assignment.tool_secrets.get(name, {}),
            )
            executor.register(importlib.import_module(BUILT_IN[name]).tool(surroundings))


def preload() -> None:
    """Imports what every built-in tool needs, before there is a task."""
    for module in BUILT_IN.values():
        importlib.import_module(module)
    from agent_runtime.tools import aws

    aws.preload()
