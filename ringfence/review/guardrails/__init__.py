"""The rules of the sandbox-guardrails pack, over plain values: what no environment that runs agents may declare."""

from __future__ import annotations

from ringfence.review.guardrails.model import Guardrail, Violation
from ringfence.review.guardrails.rules import GUARDRAILS, GuardrailRules

__all__ = ["GUARDRAILS", "Guardrail", "GuardrailRules", "Violation"]
