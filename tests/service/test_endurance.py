"""Crowds, large bodies, slow clients and the end of the process: correct codes, no crash, nothing lost."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections import Counter

import httpx
import pytest

from ringfence.service.limits import MAX_CALLERS, Rate
from ringfence.service.store import Store

CROWD = 1000


def crowd(service, headers_of, count: int = CROWD) -> list[httpx.Response]:
    """`count` new tasks at once, each over a connection of its own."""

    async def one(client: httpx.AsyncClient, index: int) -> httpx.Response:
        body = {"prompt": f"task {index}", "tools": ["s3-report-reader"]}
        return await client.post("/v1/invocations", json=body, headers=headers_of(index))

    async def all_of_them() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=count, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=300, trust_env=False) as client:
            return await asyncio.gather(*(one(client, index) for index in range(count)))

    return asyncio.run(all_of_them())


def until(condition, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to it"
        time.sleep(0.05)


def test_a_thousand_requests_at_once_are_all_accepted_and_all_run_once(start_service):
    # The crowd's one process connects a thousand times before it sends the first head, and needs the processor for that.
    with start_service(max_running=50, max_open=CROWD, head_s=120.0) as service:
        headers = service.headers()
        answers = crowd(service, lambda index: headers)
        assert Counter(answer.status_code for answer in answers) == {202: CROWD}
        assert len({answer.json()["id"] for answer in answers}) == CROWD
        until(lambda: len(service.runner.calls) == CROWD and not service.parts.desk._open)
        assert Counter(call[1] for call in service.runner.calls) == Counter(f"task {index}" for index in range(CROWD))
        assert service.runner.most <= 50
        assert service.parts.store.unfinished() == []
        for answer in answers[::100]:
            said = service.client.get(answer.headers["location"], headers=headers).json()
            assert said["result"]["status"] == "succeeded"


def test_of_a_crowd_beyond_the_limit_the_rest_is_refused_and_no_accepted_one_lost(start_service):
    with start_service(max_running=5, max_open=20) as service:
        service.runner.hold = True
        headers = service.headers()
        answers = crowd(service, lambda index: headers, 200)
        codes = Counter(answer.status_code for answer in answers)
        assert codes == {202: 20, 503: 180}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.json()["code"] == "busy" and int(refused.headers["retry-after"]) > 0
        service.runner.release()
        until(lambda: len(service.runner.calls) == 20 and not service.parts.desk._open)
        assert service.parts.store.unfinished() == []


def test_one_caller_s_crowd_is_slowed_down_and_another_s_call_is_not(start_service):
    with start_service(rate=(60, 10)) as service:
        headers = service.headers()
        answers = crowd(service, lambda index: headers, 100)
        codes = Counter(answer.status_code for answer in answers)
        assert set(codes) == {202, 429} and 5 <= codes[202] <= 30
        slowed = next(answer for answer in answers if answer.status_code == 429)
        assert int(slowed.headers["retry-after"]) >= 1 and slowed.json()["code"] == "rate_limited"
        assert service.invoke(headers=service.headers("bea@example.com")).status_code == 202


def test_a_bucket_refills_with_time_and_memory_is_bounded():
    now = [0.0]
    rate = Rate(60, 2, clock=lambda: now[0])
    assert [rate.take("a") for _ in range(3)] == [0, 0, 1]
    now[0] += 1
    assert rate.take("a") == 0 and rate.take("a") > 0
    for index in range(MAX_CALLERS + 100):
        rate.take(str(index))
    assert len(rate._buckets) == MAX_CALLERS


# Bodies


@pytest.mark.parametrize("declared", [True, False])
def test_an_oversize_body_is_refused_whether_its_length_is_declared_or_not(start_service, declared: bool):
    with start_service(max_body_bytes=10_000) as service:
        body = json.dumps({"prompt": "x" * 20_000}).encode()
        content = body if declared else iter([body[:8000], body[8000:16000], body[16000:]])
        answer = service.client.post("/v1/invocations", content=content, headers=service.headers())
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"
        assert service.invoke("x" * 5000).status_code == 202


def test_an_oversize_body_is_refused_before_anybody_proves_who_they_are(start_service):
    with start_service(max_body_bytes=1000) as service:
        assert service.client.post("/v1/invocations", content=b"x" * 2000).status_code == 413


def conversation(service, *parts: bytes, pause: float = 0.0) -> bytes:
    """What the server says on one connection until it closes it."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock:
        try:
            for part in parts:
                sock.sendall(part)
                time.sleep(pause)
        except OSError:
            pass
        said = b""
        try:
            while data := sock.recv(65536):
                said += data
        except ConnectionError:
            pass
        return said


def head(service, length: object, *more: str) -> bytes:
    lines = ["POST /v1/invocations HTTP/1.1", "Host: x", f"Authorization: {service.headers()['Authorization']}"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# Slow clients


def test_a_body_that_does_not_come_is_answered_with_408(start_service):
    with start_service(body_s=0.5) as service:
        said = conversation(service, head(service, 50), b'{"pro')
        assert b" 408 " in said.split(b"\r\n")[0] and b"body_too_slow" in said
        assert service.invoke().status_code == 202


def test_a_head_that_never_ends_is_cut_off_however_slowly_it_drips(start_service):
    with start_service(head_s=1.0) as service:
        drip = [b"GET /healthz HTTP/1.1\r\n", *(b"X-%d: y\r\n" % index for index in range(60))]
        assert conversation(service, *drip, pause=0.1) == b""
        assert service.client.get("/healthz").status_code == 200


def test_connections_that_say_nothing_do_not_keep_others_out(start_service):
    with start_service(head_s=1.0) as service:
        idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(300)]
        try:
            assert service.client.get("/healthz").status_code == 200
            until(lambda: idle[0].recv(1) == b"", 60)
        finally:
            for sock in idle:
                sock.close()


def test_a_client_that_does_not_read_is_cut_off(start_service):
    with start_service(drain_write_s=0.5) as service:
        for index in range(60):
            service.parts.store.accept(f"{index:020d}", "ana@example.com", {"tools": ["x" * 200] * 50})
        request = "GET /v1/invocations?limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n".format(
            service.headers()["Authorization"]
        ).encode()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", service.port))
            sock.sendall(request * 10)
            until(lambda: not service.server.server_state.connections, 60)
        assert service.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"POST /v1/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_bytes_that_are_no_sound_request_get_an_error_and_harm_nobody(start_service, raw: bytes):
    with start_service(head_s=1.0) as service:
        said = conversation(service, raw)
        assert not said or re.match(rb"HTTP/1.1 (4\d\d|505) ", said), said
        assert b"Traceback" not in said
        assert service.client.get("/healthz").status_code == 200


# The end


def test_while_draining_new_tasks_are_refused_and_running_ones_end(start_service):
    with start_service(drain_s=20) as service:
        service.runner.hold = True
        place = service.invoke().headers["location"]
        until(lambda: service.runner.running)
        service.server._loop.call_soon_threadsafe(service.server.begin_to_drain)
        until(lambda: service.parts.desk.draining)
        refused = service.invoke()
        assert (refused.status_code, refused.json()["code"]) == (503, "draining") and refused.headers["retry-after"]
        assert service.client.get("/readyz").status_code == 503 and service.client.get("/healthz").status_code == 200
        assert service.client.get(place, headers=service.headers()).json()["state"] == "running"
        service.runner.release()
        service.thread.join(300)
        (row,) = service.parts.store.list("ana@example.com", 10)
        assert row.result["status"] == "succeeded"
    assert service.kinds()[-1] == "service.stopped"


def test_what_still_runs_at_the_end_of_the_drain_is_cancelled_and_says_so(start_service):
    with start_service(drain_s=0.2) as service:
        service.runner.hold = True
        service.invoke()
        until(lambda: service.runner.running)
        service.server._loop.call_soon_threadsafe(service.server.begin_to_drain)
        service.thread.join(300)
        (row,) = service.parts.store.list("ana@example.com", 10)
        assert row.result["status"] == "cancelled"


def test_what_had_not_started_is_run_by_the_next_process(start_service, tmp_path):
    with start_service(folder=tmp_path, max_running=1, drain_s=0.2) as first:
        first.runner.hold = True
        first.invoke("runs")
        until(lambda: first.runner.running)
        waiting = [first.invoke(f"waits {index}").json()["id"] for index in range(5)]
        first.server._loop.call_soon_threadsafe(first.server.begin_to_drain)
        first.thread.join(300)
        assert [call[1] for call in first.runner.calls] == ["runs"]
    with start_service(folder=tmp_path) as second:
        until(lambda: len(second.runner.calls) == 5 and not second.parts.desk._open)
        assert sorted(call[1] for call in second.runner.calls) == [f"waits {index}" for index in range(5)]
        for request_id in waiting:
            said = second.client.get(f"/v1/invocations/{request_id}", headers=second.headers()).json()
            assert said["result"]["status"] == "succeeded"


def test_what_a_killed_process_was_running_is_reported_as_failed_and_not_run_again(start_service, tmp_path):
    store = Store(tmp_path / "service" / "requests.sqlite")
    store.accept("0" * 20, "ana@example.com", {"prompt": "p", "tools": []})
    store.start("0" * 20, {"tools": []})
    store.close()
    with start_service(folder=tmp_path) as service:
        said = service.client.get(f"/v1/invocations/{'0' * 20}", headers=service.headers()).json()
        assert said["result"]["status"] == "failed" and "stopped while the task ran" in said["result"]["error"]
        assert service.runner.calls == []


def test_what_waited_too_long_over_a_restart_is_not_run(start_service, tmp_path):
    store = Store(tmp_path / "service" / "requests.sqlite", clock=lambda: time.time() - 1000)
    store.accept("0" * 20, "ana@example.com", {"prompt": "p", "tools": []})
    store.close()
    with start_service(folder=tmp_path) as service:
        said = service.client.get(f"/v1/invocations/{'0' * 20}", headers=service.headers()).json()
        assert said["result"]["status"] == "cancelled" and service.runner.calls == []


def test_a_prompt_is_gone_from_the_disk_once_its_task_has_started(service, tmp_path):
    service.invoke("a very particular prompt", wait=30)
    with service.parts.store._file.connection() as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "service").iterdir())
    # The result quotes it here; the request doesn't keep it.
    assert on_disk.count(b"a very particular prompt") == on_disk.count(b"did: a very particular prompt")


def test_old_results_are_forgotten(tmp_path):
    now = [1_000_000.0]
    store = Store(tmp_path / "requests.sqlite", clock=lambda: now[0])
    store.accept("a" * 20, "ana", {"tools": []})
    store.end("a" * 20, {"status": "succeeded"})
    now[0] += 25 * 3600
    store.accept("b" * 20, "ana", {"tools": []})
    store.end("b" * 20, {"status": "succeeded"})
    assert store.find("a" * 20) is None and store.find("b" * 20) is not None
