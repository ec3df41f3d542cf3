"""The API over a real connection: tasks run, are watched, cancelled, refused; errors are problems, never tracebacks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ringfence.gateway import Gateway
from ringfence.gateway.errors import ApiError as GatewayError
from ringfence.gateway.scripted import Script, Scripted, Step
from ringfence.invocation import Invocation, new_id

PROBLEM = "application/problem+json"


def test_a_task_is_accepted_with_a_place_to_look_and_ends(service):
    answer = service.invoke("read the report")
    assert answer.status_code == 202
    place = answer.headers["location"]
    assert answer.json()["state"] in ("accepted", "running")
    assert service.client.get(place, headers=service.headers()).json()["id"] in place
    done = service.invoke("again", wait=30)
    assert done.status_code == 200
    said = done.json()
    assert said["state"] == "ended" and said["result"]["status"] == "succeeded"
    assert said["result"]["output"] == "did: again" and said["result"]["cost_usd"] == "0.01"
    assert said["invocation_id"] == said["result"]["invocation_id"] and said["result"]["audit_id"]


def test_the_runner_gets_the_proven_user_and_groups_and_the_service_s_model(service):
    service.invoke("p", wait=30, max_usd="2.5", timeout_seconds=60)
    ((user, prompt, tools, options),) = service.runner.calls
    assert (user, prompt, tools) == ("ana@example.com", "p", ("s3-report-reader",))
    assert options["groups"] == ["analysts"] and options["source"] == "127.0.0.1" and options["model"] == "scripted"
    assert options["max_usd"] == "2.5" and options["timeout_seconds"] == 60


def test_progress_is_streamed_and_ends_with_the_task(service):
    service.runner.hold = True
    place = service.invoke().headers["location"]
    seen = []
    with service.client.stream("GET", f"{place}/events", headers=service.headers()) as stream:
        for line in stream.iter_lines():
            if line.startswith("event:"):
                seen.append(line)
                service.runner.release()
            if line.startswith("data:"):
                last = json.loads(line[5:])
    assert seen[0] == "event: progress" and seen[-1] == "event: ended"
    assert last["result"]["status"] == "succeeded"


def test_a_reconnecting_watcher_sees_only_what_it_missed(service):
    service.runner.hold = True
    place = service.invoke().headers["location"]
    service.runner.hold = False
    with service.client.stream("GET", f"{place}/events", headers=service.headers() | {"Last-Event-ID": "1"}) as stream:
        lines = iter(stream.iter_lines())
        service.runner.release()
        numbers = [line for line in lines if line.startswith("id:")]
    assert numbers == ["id: 2"]


def test_a_task_is_cancelled_by_its_caller(service):
    service.runner.hold = True
    place = service.invoke().headers["location"]
    assert service.client.delete(place, headers=service.headers()).status_code == 202
    with service.client.stream("GET", f"{place}/events", headers=service.headers()) as stream:
        stream.read()
    said = service.client.get(place, headers=service.headers()).json()
    assert said["state"] == "ended" and said["result"]["status"] == "cancelled"
    again = service.client.delete(place, headers=service.headers()).json()
    assert again["result"]["status"] == "cancelled"


def test_nobody_sees_or_cancels_another_s_task(service):
    place = service.invoke(wait=30).json()["id"]
    other = service.headers("sam@example.com", ("analysts",))
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = service.client.request(method, f"/v1/invocations/{place}{path}", headers=other)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert service.client.get("/v1/invocations", headers=other).json()["invocations"] == []
    assert len(service.client.get("/v1/invocations", headers=service.headers()).json()["invocations"]) == 1


def test_a_tool_that_the_caller_may_not_use_is_refused_recorded_and_nothing_runs(service):
    answer = service.invoke(tools=["s3-report-reader", "ticket-store"])
    assert answer.status_code == 403 and answer.headers["content-type"] == PROBLEM
    said = answer.json()
    assert said["code"] == "tool_not_allowed" and said["refusals"][0]["subject"] == "ticket-store"
    assert service.runner.calls == []
    assert service.client.get("/v1/invocations", headers=service.headers()).json()["invocations"] == []
    assert service.kinds().count("access.refused") == 1


def test_a_scope_reaches_the_runner_and_only_narrows(service):
    tools = ["s3-report-reader"]
    key = "arn:${partition}:s3:::example-reports-${account}/published/2026-10.csv"
    scopes = {"s3-report-reader": {"actions": ["s3:GetObject"], "resources": [key]}}
    assert service.invoke(wait=30, tools=tools, scopes=scopes).json()["state"] == "ended"
    given = service.runner.calls[0][3]["scopes"]
    assert given == {
        "s3-report-reader": {
            "actions": ["s3:GetObject"],
            "resources": ["arn:aws:s3:::example-reports-123456789012/published/2026-10.csv"],
        }
    }
    assert service.invoke(wait=30, tools=tools).json()["state"] == "ended"
    assert "scopes" not in service.runner.calls[1][3]
    for wrong, said in (
        ({"s3-report-reader": {"actions": ["s3:PutObject"]}}, "is not granted"),
        ({"s3-report-reader": {"resources": ["*"]}}, "is not granted"),
        ({"web-fetch": {"actions": ["s3:GetObject"]}}, "asked for"),
        ({"s3-report-reader": {}}, "narrows nothing"),
        ({"s3-report-reader": {"actions": []}}, "scopes"),
        ({"s3-report-reader": {"effect": "Allow"}}, "scopes"),
    ):
        answer = service.invoke(tools=tools, scopes=wrong)
        assert answer.status_code in (400, 422) and said in answer.text, answer.text
    assert len(service.runner.calls) == 2


def test_refused_attempts_are_clustered_by_caller_and_raise_one_alert(service):
    for _ in range(7):
        assert service.invoke(tools=["ticket-store"]).status_code == 403
    assert service.kinds().count("access.refused") == 7
    assert service.kinds().count("alert.refusals") == 1
    assert (
        service.invoke(tools=["ticket-store"], headers=service.headers("sam@example.com", ("support",))).status_code
        == 202
    )


def test_callers_see_the_tools_of_their_roles(service):
    said = service.client.get("/v1/tools", headers=service.headers()).json()
    assert said["roles"] == ["analyst"]
    assert {tool["name"] for tool in said["tools"]} == {"model-call", "s3-report-reader", "web-fetch"}
    stranger = service.client.get("/v1/tools", headers=service.headers("eve", ("strangers",)))
    assert (stranger.status_code, stranger.json()["code"]) == (403, "no_role")


BAD_BODIES = {
    "no prompt": ({"tools": []}, 422),
    "empty prompt": ({"prompt": ""}, 422),
    "blank prompt": ({"prompt": "  "}, 422),
    "unknown key": ({"prompt": "p", "groups": ["audit"]}, 422),
    "tools as text": ({"prompt": "p", "tools": "s3-report-reader"}, 422),
    "too many tools": ({"prompt": "p", "tools": [f"t{i}" for i in range(51)]}, 422),
    "too much money": ({"prompt": "p", "max_usd": 10.01}, 422),
    "no money": ({"prompt": "p", "max_usd": 0}, 422),
    "not a number": ({"prompt": "p", "max_usd": "NaN"}, 422),
    "too long": ({"prompt": "p", "timeout_seconds": 301}, 422),
    "a NUL": ({"prompt": "a\0b"}, 422),
    "half a surrogate": ({"prompt": "\ud800"}, 422),
    "unprintable conversation": ({"prompt": "p", "conversation": "a\nb"}, 422),
    "a list": ([], 422),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_task_is_a_problem_that_names_the_key_and_does_not_send_the_value_back(service, case: str):
    body, status = BAD_BODIES[case]
    answer = service.client.post(
        "/v1/invocations", content=json.dumps(body), headers=service.headers() | {"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert answer.headers["content-type"] == PROBLEM and said["problems"] and said["request_id"]
    assert "Traceback" not in answer.text
    assert service.runner.calls == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[" * 100_000])
def test_what_is_not_json_is_said(service, content: bytes):
    answer = service.client.post(
        "/v1/invocations", content=content, headers=service.headers() | {"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422) and answer.headers["content-type"] == PROBLEM


def test_an_internal_error_shows_a_request_id_and_nothing_of_the_inside(service, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("the password is correct horse")

    monkeypatch.setattr(service.parts.store, "list", broken)
    answer = service.client.get("/v1/invocations", headers=service.headers())
    assert answer.status_code == 500 and answer.headers["content-type"] == PROBLEM
    assert answer.json()["code"] == "internal_error" and answer.json()["request_id"]
    assert "password" not in answer.text and "ZeroDivision" not in answer.text


def test_a_runner_that_fails_ends_the_task_with_its_sentence(service):
    service.runner.failure = ZeroDivisionError("inside")
    said = service.invoke(wait=30).json()
    assert said["result"]["status"] == "failed" and said["result"]["error"] == "internal error: ZeroDivisionError"


def test_when_nothing_can_be_recorded_nothing_starts(service):
    head = service.trail.read_bytes()
    service.trail.write_bytes(head.replace(b"service.started", b"service.begun"))
    answer = service.invoke(tools=["ticket-store"])
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert str(service.trail) not in answer.text
    service.trail.write_bytes(head)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("PUT", "/v1/invocations", 405),
        ("GET", "/v1/invocations/../x", 404),
        ("GET", "/v1/invocations/UPPER", 422),
    ],
)
def test_unknown_paths_and_methods_are_problems_too(service, method: str, path: str, status: int):
    answer = service.client.request(method, path, headers=service.headers())
    assert answer.status_code == status and answer.headers["content-type"] == PROBLEM


def test_probes_and_metrics_need_no_identity_and_tell_no_user(service):
    service.invoke(wait=30)
    service.invoke(tools=["ticket-store"])
    assert service.client.get("/healthz").json()["status"] == "ok"
    assert service.client.get("/readyz").status_code == 200
    text = service.client.get("/metrics").text
    assert 'ringfence_invocations_total{status="succeeded"} 1' in text
    assert 'ringfence_refusals_total{code="tool_not_allowed"} 1' in text
    assert 'route="/v1/invocations",status="200"' in text and "ana@example.com" not in text


def test_the_description_demands_an_identity_for_every_call_but_the_probes(service):
    said = service.client.get("/openapi.json").json()
    for path, operations in said["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == path.startswith("/v1/"), path
    for path in (path for path in said["paths"] if path.startswith("/v1/")):
        for method in said["paths"][path]:
            answer = service.client.request(method, path.replace("{id}", "0" * 20))
            assert answer.status_code == 401, (method, path)


def test_metrics_show_what_conversations_cost_and_how_tools_fare(start_service, tmp_path):
    gateway = Gateway(tmp_path / "ledger.sqlite", [Scripted(Script(steps=[Step(say="hi")]))])
    now = datetime.now(UTC)
    invocation = Invocation(new_id(), "ana", "p", ("web-fetch",), now, now + timedelta(seconds=60), model="scripted")
    gateway.open(invocation)
    gateway.metrics.tool_called("web-fetch", "ok", 0.2)
    gateway.refused(None, GatewayError("unauthorized", "no token"))
    with start_service(more_metrics=gateway.metrics_text) as running:
        lines = running.client.get("/metrics").text.splitlines()
    gateway.stop()
    assert f'ringfence_conversation_spent_usd{{conversation="{invocation.id}"}} 0' in lines
    assert 'ringfence_gateway_tool_calls_total{tool="web-fetch",outcome="ok"} 1' in lines
    assert 'ringfence_gateway_tool_seconds_count{tool="web-fetch"} 1' in lines
    assert 'ringfence_gateway_refusals_total{code="unauthorized"} 1' in lines
    assert "ringfence_invocations_active 0" in lines
    families = [line for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
