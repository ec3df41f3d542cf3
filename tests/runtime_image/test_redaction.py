"""Credentials never leave in the clear: logs, prints, events, results, the model's own context."""

from __future__ import annotations

import base64
import io
import json
import logging
import urllib.parse

import pytest
from agent_runtime import InstrumentedAgentExecutor, Redactor, Tool, ToolError
from agent_runtime.audit import GatewaySink
from agent_runtime.errors import GatewayError
from agent_runtime.logs import JsonFormatter
from agent_runtime.redaction import RedactingStream
from agent_runtime.secret_patterns import PATTERNS
from hypothesis import given
from hypothesis import strategies as st

from ringfence.redaction import patterns as control_side

SECRET = 'wJalr/XUtn+FEMI"K7&MDENG bPxRfi=CYEX'
SESSION = "FwoGZXIvYXdz" + "EPT//////////wEaDKq" * 20
FORMS = {
    "raw": SECRET,
    "url": urllib.parse.quote(SECRET, safe=""),
    "url, lower case": urllib.parse.quote(SECRET, safe="")
    .replace("%2F", "%2f")
    .replace("%2B", "%2b")
    .replace("%3D", "%3d"),
    "form": urllib.parse.quote_plus(SECRET),
    "json": json.dumps(SECRET)[1:-1],
    "hexadecimal": SECRET.encode().hex(),
    "hexadecimal, upper case": SECRET.encode().hex().upper(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 after one": base64.b64encode(b"x" + SECRET.encode() + b"yz").decode(),
    "base64 after two": base64.b64encode(b"xy" + SECRET.encode() + b"z").decode(),
    "base64 for URLs": base64.urlsafe_b64encode(b"xyz" + SECRET.encode()).decode(),
}


def inner(text: str) -> str:
    """The part of a form that must be gone: what stands at the ends may belong to something else."""
    return text[6:-6]


@pytest.mark.parametrize("form", FORMS)
def test_a_held_value_is_masked_in_every_form(form):
    text = f"before {FORMS[form]} after"
    assert inner(FORMS[form]) not in Redactor([SECRET])(text)
    assert Redactor([SECRET]).holds(text)
    # Without having been told, nobody could know.
    assert Redactor()(text) == text


@given(
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=_-", min_size=8, max_size=60),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_a_held_value_is_masked_in_base64_at_any_place(secret, before, after):
    text = base64.b64encode(before + secret.encode() + after).decode()
    masked = Redactor([secret])(text)
    if len(secret) >= 12:
        assert masked != text
    assert secret not in masked


def test_a_value_too_short_to_be_a_secret_masks_no_words():
    assert Redactor(["the"])("the other") == "the other"


def test_the_image_knows_the_same_shapes_as_the_collector():
    assert [(item.name, item.regex) for item in PATTERNS] == [(item.name, item.regex) for item in control_side.PATTERNS]


@pytest.mark.parametrize(
    "text", ["AKIA" + "IOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "postgres://user:hunter2hunter2@db/x"]
)
def test_shapes_of_secrets_are_masked_by_name(text):
    assert "[redacted:" in Redactor()(f"x {text} y")


def test_a_secret_printed_piece_by_piece_is_masked():
    inner_stream = io.StringIO()
    stream = RedactingStream(inner_stream, Redactor([SECRET]))
    for letter in f"the key is {SECRET}!\n":
        print(letter, end="", file=stream, flush=True)
    print("unfinished " + SECRET, end="", file=stream)
    stream.finish()
    assert inner_stream.getvalue() == "the key is [redacted:held-credential]!\nunfinished [redacted:held-credential]"


def test_a_private_key_over_many_lines_is_masked_whole():
    inner_stream = io.StringIO()
    stream = RedactingStream(inner_stream, Redactor())
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
    for line in (
        "before",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        body,
        body,
        "-----END RSA " + "PRIVATE KEY-----",
        "after",
    ):
        print(line, file=stream)
    stream.finish()
    assert body not in inner_stream.getvalue()
    assert inner_stream.getvalue().startswith("before\n")
    assert inner_stream.getvalue().endswith("after\n")


def test_a_line_without_an_end_is_not_held_for_ever():
    inner_stream = io.StringIO()
    stream = RedactingStream(inner_stream, Redactor())
    stream.write("x" * 70_000)
    assert len(inner_stream.getvalue()) == 70_000


def test_a_log_record_is_one_masked_json_line():
    handler_output = io.StringIO()
    logger = logging.Logger("t")
    handler = logging.StreamHandler(handler_output)
    handler.setFormatter(JsonFormatter(Redactor([SECRET]), "inv1"))
    logger.addHandler(handler)
    try:
        raise RuntimeError(f"bad key {SECRET}")
    except RuntimeError:
        logger.exception("line one\nline two %s", SECRET, extra={"tool": "t", "held": [SECRET]})
    lines = handler_output.getvalue().splitlines()
    assert len(lines) == 1
    record = json.loads(lines[0])
    assert (record["severity"], record["tool"], record["ringfence.invocation.id"]) == ("ERROR", "t", "inv1")
    assert record["exception.type"] == "RuntimeError"
    assert inner(SECRET) not in lines[0]
    assert inner(json.dumps(SECRET)) not in lines[0]


class Events(list):
    def emit(self, kind, **fields):
        self.append((kind, fields))


def test_neither_model_nor_events_see_a_credential_that_a_tool_returns():
    events = Events()
    made = InstrumentedAgentExecutor(
        prompt="x", allowed_tools=["t", "u"], redactor=Redactor([SECRET, SESSION]), sink=events
    )
    made.register(Tool("t", "", {}, lambda sent: {"env": SECRET, "token": SESSION}))

    def fail(sent):
        raise ToolError(f"login with {SECRET} failed")

    made.register(Tool("u", "", {}, fail))
    for outcome in (made.call("t", {}), made.call("u", {})):
        assert "[redacted:held-credential]" in outcome.content
        assert inner(SECRET) not in outcome.content
        assert inner(SESSION) not in outcome.content
    assert inner(SECRET) not in str(events)


def test_a_credential_in_an_argument_stops_the_call():
    seen = []
    made = InstrumentedAgentExecutor(prompt="x", allowed_tools=["t"], redactor=Redactor([SECRET]))
    made.register(Tool("t", "", {"properties": {"x": {}}}, lambda sent: seen.append(sent) or "ok"))
    for form in FORMS.values():
        made.tool_breaker.succeeded()
        assert made.call("t", {"x": f"{form}"}).code == "secret_in_arguments"
    assert seen == []
    assert made.call("t", {"x": "nothing secret"}).ok


# Events


def test_events_arrive_in_order_and_masked():
    posted: list = []
    sink = GatewaySink(posted.extend, Redactor([SECRET]))
    for number in range(50):
        sink.emit("log", number=number, nested={"a": [SECRET]})
    sink.close()
    assert [event["number"] for event in posted] == list(range(50))
    assert inner(SECRET) not in str(posted)
    assert all(event["type"] == "log" and event["time"].endswith("+00:00") for event in posted)


def test_events_that_come_too_fast_are_counted_not_kept(monkeypatch):
    import threading

    monkeypatch.setattr("agent_runtime.audit.MAX_WAITING", 10)
    go, posted = threading.Event(), []

    def send(events):
        go.wait(10)
        posted.extend(events)

    sink = GatewaySink(send, str)
    for number in range(40):
        sink.emit("log", number=number)
    go.set()
    sink.close()
    dropped = [event["message"] for event in posted if "message" in event]
    told = sum(int(message.split()[0]) for message in dropped)
    assert told > 0
    assert len(posted) - len(dropped) + told == 40


def test_events_are_cut_to_what_the_gateway_takes():
    posts: list[list] = []
    sink = GatewaySink(lambda events: posts.append(list(events)), str)
    for _ in range(40):
        sink.emit("log", texts=["x" * 5000] * 50, number=1)
        sink.emit("log", text="y" * 100_000, many=list(range(100)))
    sink.close()
    events = [event for post in posts for event in post]
    assert len(events) == 80
    assert all(len(json.dumps(event)) <= 16 << 10 for event in events)
    assert all(len("".join(json.dumps(event) + "\n" for event in post)) <= 256 << 10 for post in posts)
    assert "left out" in events[0]["message"]
    assert (len(events[1]["text"]), len(events[1]["many"])) == (2000, 20)


def test_events_survive_a_gateway_that_stumbles_and_give_up_on_one_that_refuses():
    answers = iter([GatewayError(0, "gateway_unreachable", ""), GatewayError(503, "busy", ""), None])
    posted: list = []

    def send(events):
        fault = next(answers)
        if fault:
            raise fault
        posted.extend(events)

    sink = GatewaySink(send, str)
    sink.emit("log", n=1)
    sink.close()
    assert [event["n"] for event in posted] == [1]

    tries = []

    def refuse(events):
        tries.append(events)
        raise GatewayError(413, "too_large", "")

    sink = GatewaySink(refuse, str)
    sink.emit("log", n=1)
    sink.close()
    assert len(tries) == 1
