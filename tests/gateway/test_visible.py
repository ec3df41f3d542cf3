"""What the control side sees: metrics, calls that ended, and `ringfence status`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ringfence import telemetry_names as names
from ringfence.gateway import metrics
from ringfence.gateway.ledger import LEDGER_FILE, Ledger
from ringfence.gateway.metrics import Metrics
from ringfence.gateway.prices import Tokens
from ringfence.local import commands
from tests.gateway.conftest import chat


@pytest.mark.anyio
async def test_live_cost_is_measured_and_no_sandbox_reads_it(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        await client.post("/v1/chat/completions", json=chat())
        await client.post("/v1/chat/completions", json=chat(model="gpt-4.1"))
        lines = lab.gateway.metrics_text().splitlines()
        assert f'ringfence_conversation_spent_usd{{conversation="{invocation.id}"}} 0.0035' in lines
        assert 'ringfence_gateway_calls_total{outcome="ok"} 1' in lines
        assert 'ringfence_gateway_refusals_total{code="model_unknown"} 1' in lines
        assert 'ringfence_gateway_tokens_total{type="output"} 100' in lines
        assert "ringfence_gateway_call_seconds_count 1" in lines
        assert (await client.get("/metrics")).status_code == 404
        lab.gateway.close(invocation.id)
        assert 'ringfence_invocation_cost_usd_bucket{le="0.01"} 1' in lab.gateway.metrics_text().splitlines()


@pytest.mark.anyio
async def test_a_thousand_conversations_are_a_bounded_number_of_series_and_no_name_of_theirs_is_shown(
    start: Any,
) -> None:
    async with start() as lab:
        for number in range(300):
            lab.gateway.open(lab.invocation(conversation=f"ana.smith-{number}"))
        text = lab.gateway.metrics_text()
    assert text.count("ringfence_conversation_spent_usd{") == metrics.SHOWN
    assert 'conversation="sha256:' in text
    assert "smith" not in text


def test_durations_of_tools_are_counted_by_their_bounds() -> None:
    measured = Metrics()
    for seconds in (0.05, 0.06, 400.0, None):
        measured.tool_called("web-fetch", "ok", seconds)
    lines = measured.text([]).splitlines()
    assert 'ringfence_gateway_tool_seconds_bucket{tool="web-fetch",le="0.05"} 1' in lines
    assert 'ringfence_gateway_tool_seconds_bucket{tool="web-fetch",le="0.1"} 2' in lines
    assert 'ringfence_gateway_tool_seconds_bucket{tool="web-fetch",le="300"} 2' in lines
    assert 'ringfence_gateway_tool_seconds_bucket{tool="web-fetch",le="+Inf"} 3' in lines
    assert 'ringfence_gateway_tool_seconds_count{tool="web-fetch"} 3' in lines


@pytest.mark.anyio
async def test_tool_calls_are_measured_by_the_names_that_the_invocation_has(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        said: list[Any] = [
            {"tool": "web-fetch", "outcome": "ok", "seconds": 0.5}, {"tool": "web-fetch", "outcome": "error", "seconds": 1e9},
            {"tool": 'evil"} 1\nringfence_x 5', "outcome": "ok"}, {"tool": ["web-fetch"], "seconds": "1"}, {"tool": "web-fetch", "outcome": "ok", "seconds": True},
        ]  # fmt: skip
        content = "\n".join(json.dumps({"type": "tool_call"} | event) for event in said)
        assert (await client.post("/v1/events", content=content)).status_code == 202
        lines = [
            line
            for line in lab.gateway.metrics.text([]).splitlines()
            if line.startswith("ringfence_gateway_tool_calls_total")
        ]
        assert lines == [
            'ringfence_gateway_tool_calls_total{tool="_OTHER",outcome="error"} 1',
            'ringfence_gateway_tool_calls_total{tool="_OTHER",outcome="ok"} 1',
            'ringfence_gateway_tool_calls_total{tool="web-fetch",outcome="error"} 1',
            'ringfence_gateway_tool_calls_total{tool="web-fetch",outcome="ok"} 2',
        ]


@pytest.mark.anyio
async def test_each_forwarded_call_is_handed_on_with_what_it_cost_and_a_refused_one_is_not(start: Any) -> None:
    uses: list[tuple[Any, Any]] = []
    async with start(on_use=lambda *entry: uses.append(entry)) as lab:
        invocation, client = await lab.sandbox()
        await client.post("/v1/chat/completions", json=chat())
        lab.provider.status = 400
        await client.post("/v1/chat/completions", json=chat("again"))
        await client.post("/v1/chat/completions", json=chat(model="gpt-4.1"))
        lab.gateway.stop()
        assert [owner.id for owner, _ in uses] == [invocation.id, invocation.id]
        first, second = (use for _, use in uses)
        assert (first.model, first.api, first.provider, first.input_tokens, first.output_tokens) == (
            "gpt-4o", "openai", "openai", 1000, 100,
        )  # fmt: skip
        assert first.ok and str(first.cost_usd) == "0.0035"
        assert not second.ok and second.cost_usd == 0
        assert (first.fields()["outcome"], second.fields()["outcome"]) == ("success", "failure")


def test_telemetry_gets_the_agreed_names(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    measured = Metrics()
    measured.call("openai", Tokens(1000, 100), 3_500_000, 7_000_000, 1.5)
    measured.call("openai", None, 1, 8_000_000, 0.5)
    measured.refused("rate")
    measured.tool_called("web-fetch", "ok", 0.25)
    measured.tool_called("web-fetch", "error", None)
    data = reader.get_metrics_data()
    assert data is not None
    found = {metric.name: metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics}
    assert set(found) == {
        names.CONVERSATION_COST.name, names.MODEL_DURATION.name, names.TOKEN_USAGE.name, names.DECISIONS.name, names.TOOL_DURATION.name,
    }  # fmt: skip
    (tool,) = found[names.TOOL_DURATION.name].data.data_points
    assert (tool.count, dict(tool.attributes)) == (1, {names.TOOL: "web-fetch"})
    (cost,) = found[names.CONVERSATION_COST.name].data.data_points
    assert (cost.count, cost.max, found[names.CONVERSATION_COST.name].unit) == (2, 0.008, names.CONVERSATION_COST.unit)
    assert {key for metric in found.values() for point in metric.data.data_points for key in point.attributes} <= set(
        names.ALLOWED_ATTRIBUTES
    )


def test_without_telemetrys_api_the_counters_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda _name: None)
    measured = Metrics()
    measured.call("openai", Tokens(1, 2), 5, 5, 0.1)
    assert "ringfence_gateway_cost_usd_total 0.000000005" in measured.text([])


def test_status_shows_what_conversations_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: x\nruntime: python\n")
    home = tmp_path / "home"
    monkeypatch.setenv("RINGFENCE_HOME", str(home))
    before = CliRunner().invoke(commands.status, ["--project", str(tmp_path), "--json"])
    assert json.loads(before.output)["conversations"] == []
    ledger = Ledger(home / LEDGER_FILE)
    now = datetime.now(UTC)
    ledger.open("invocation001", "talk", "ada", "m", cap=10**10, now=now, deadline=now + timedelta(seconds=200))
    ledger.settle(ledger.reserve("invocation001", 10**9, now), 25 * 10**7, 1, 1, now)
    ledger.reserve("invocation001", 10**9, now)
    shown = CliRunner().invoke(commands.status, ["--project", str(tmp_path)])
    assert "conversation talk  ada: $0.2500 + 1.0000 held of $10.00, 2 calls, 1 running" in shown.output
    (row,) = json.loads(CliRunner().invoke(commands.status, ["--project", str(tmp_path), "--json"]).output)[
        "conversations"
    ]
    assert (row["spent_usd"], row["reserved_usd"], row["user"]) == ("0.2500", "1.0000", "ada")
