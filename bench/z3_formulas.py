"""Whole policy documents as one formula each over z3's theory of strings: action, resource and one text per condition key."""

from __future__ import annotations

from typing import Any

import z3

from bench.policies import entries, statements


class Formulas:
    """Compares documents by asking for a request that the second allows and the first doesn't."""

    def __init__(self) -> None:
        self._action, self._resource = z3.String("action"), z3.String("resource")

    def compare(self, old: dict[str, Any], new: dict[str, Any], timeout_s: float) -> str:
        """ "widened", "contained" or, when z3 gives up, "timeout"."""
        solver = z3.Solver()
        solver.set("timeout", int(timeout_s * 1000))
        solver.add(self._allowed(new), z3.Not(self._allowed(old)))
        return {"sat": "widened", "unsat": "contained"}.get(str(solver.check()), "timeout")

    def _allowed(self, document: dict[str, Any]) -> Any:
        by_effect = {
            effect: [self._applies(each) for each in statements(document) if each["Effect"] == effect]
            for effect in ("Allow", "Deny")
        }
        return z3.And(z3.Or(by_effect["Allow"]), z3.Not(z3.Or(by_effect["Deny"])))

    def _applies(self, statement: dict[str, Any]) -> Any:
        parts = [
            _any_of(self._action, statement["Action"], True)
            if "Action" in statement
            else z3.Not(_any_of(self._action, statement["NotAction"], True)),
            _any_of(self._resource, statement["Resource"])
            if "Resource" in statement
            else z3.Not(_any_of(self._resource, statement["NotResource"])),
        ]
        for operator, tests in statement.get("Condition", {}).items():
            parts += [_condition(operator, key, values) for key, values in tests.items()]
        return z3.And(parts)


def _condition(operator: str, key: str, values: Any) -> Any:
    present, value = z3.Bool(f"has {key.lower()}"), z3.String(f"value {key.lower()}")
    listed = [str(each).lower() if isinstance(each, bool) else str(each) for each in entries(values)]
    base = operator.split(":")[-1].removesuffix("IfExists")
    if base == "Null":
        return z3.Not(present) if listed == ["true"] else present
    # Operators on numbers, dates and addresses are left as facts of their own, which only makes the formula easier.
    holds = (
        _any_of(value, listed)
        if base.startswith(("String", "Arn", "Bool"))
        else z3.Bool(f"{base} {key.lower()} {sorted(listed)}")
    )
    if "Not" in base:
        return z3.Or(z3.Not(present), z3.Not(holds))
    if operator.endswith("IfExists") or operator.startswith("ForAllValues"):
        return z3.Or(z3.Not(present), holds)
    return z3.And(present, holds)


def _any_of(variable: Any, listed: Any, lower: bool = False) -> Any:
    texts = [text.lower() if lower else text for text in entries(listed)]
    return z3.Or(
        [variable == z3.StringVal(t) if not set("*?") & set(t) else z3.InRe(variable, _glob(t)) for t in texts]
    )


def _glob(text: str) -> Any:
    parts: list[Any] = []
    literal = ""
    for character in text + "\0":
        if character in "*?\0":
            if literal:
                parts.append(z3.Re(literal))
                literal = ""
            if character == "*":
                parts.append(z3.Full(z3.ReSort(z3.StringSort())))
            elif character == "?":
                parts.append(z3.AllChar(z3.ReSort(z3.StringSort())))
        else:
            literal += character
    return z3.Concat(*parts) if len(parts) > 1 else parts[0] if parts else z3.Re("")
