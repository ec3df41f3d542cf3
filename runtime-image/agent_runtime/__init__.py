"""What runs inside a sandbox, and a library that wraps any agent the same way: gate, budgets, telemetry, audit.

Start with `InstrumentedAgentExecutor`; frameworks are wrapped by the modules of `agent_runtime.adapters`.
"""

from __future__ import annotations

from agent_runtime.budget import Breaker, Budget, Deadline, Rate
from agent_runtime.declaration import ArgumentRule, Declaration, Grant
from agent_runtime.errors import (
    BreakerOpen,
    BudgetExhausted,
    DeadlineExceeded,
    GatewayError,
    ModelUnknown,
    RuntimeFault,
    Stopped,
    ToolError,
)
from agent_runtime.executor import InstrumentedAgentExecutor
from agent_runtime.gate import Decision, Gate
from agent_runtime.model import BudgetedModel
from agent_runtime.prices import Prices
from agent_runtime.redaction import Redactor
from agent_runtime.tool import Outcome, Tool

__all__ = [
    "ArgumentRule",
    "Breaker",
    "BreakerOpen",
    "Budget",
    "BudgetExhausted",
    "BudgetedModel",
    "Deadline",
    "DeadlineExceeded",
    "Decision",
    "Declaration",
    "Gate",
    "GatewayError",
    "Grant",
    "InstrumentedAgentExecutor",
    "ModelUnknown",
    "Outcome",
    "Prices",
    "Rate",
    "Redactor",
    "RuntimeFault",
    "Stopped",
    "Tool",
    "ToolError",
]
