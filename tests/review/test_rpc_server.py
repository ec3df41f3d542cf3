"""The packs' gRPC server with the general library as its client, and with clients that don't keep to the protocol."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.review.rpc_server import INTERNAL, INVALID_ARGUMENT, RpcError, Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Header block of a call to /echo: POST, http, :path as a literal.
ECHO = b"\x83\x86\x04\x05/echo"
MESSAGE = b"\0\0\0\0\x02hi"

Call = Callable[..., bytes]


def refuse(body: bytes) -> bytes:
    raise RpcError(INVALID_ARGUMENT, f"no, 100% „{body.decode()}“\nnever" + "!" * 50_000)


def count(body: bytes) -> bytes:
    return b"x" * int(body)


@pytest.fixture(scope="module")
def server() -> Server:
    made = Server({"/echo": lambda body: body, "/refuse": refuse, "/count": count})
    made.start()
    return made


@pytest.fixture(scope="module")
def call(server: Server) -> Iterator[Call]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield lambda path, body, **more: channel.unary_unary(path)(body, timeout=300, **more)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, number) + payload


SETTINGS = frame(4, 0, 0, b"")
HEADERS = frame(1, 0x4, 1, ECHO)


def answer(server: Server, *parts: bytes, timeout_s: float = 10.0) -> bytes:
    """All that the server sends until it closes or has answered stream 1."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as client:
        client.sendall(b"".join(parts))
        received = b""
        while b"grpc-status" not in received:
            part = client.recv(65536)
            if not part:
                break
            received += part
        return received


def test_calls_are_answered_with_what_their_handler_makes(call: Call) -> None:
    for body in (b"", b"hi", b"\0" * 70_000):
        assert call("/echo", body) == body
    for _ in range(300):  # the client's header table fills and is used
        assert call("/echo", b"again", metadata=(("x-key", "value"),)) == b"again"


def test_messages_larger_than_every_window_pass_both_ways(call: Call) -> None:
    body = bytes(range(256)) * 40_000
    assert call("/echo", body) == body
    assert len(call("/count", b"3000000")) == 3_000_000


def test_an_error_keeps_its_words(call: Call) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call("/refuse", "ß".encode())
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith("no, 100% „ß“\nnever!")
    assert call("/echo", b"still there") == b"still there"


def test_a_call_that_nobody_handles_is_unimplemented(call: Call) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call("/other", b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_compressed_message_is_not_taken_for_a_plain_one(call: Call) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call("/echo", b"a" * 10_000, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.INTERNAL


def test_many_connections_are_answered_at_once(server: Server) -> None:
    def one(number: int) -> bool:
        with grpc.insecure_channel(
            f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            body = str(number).encode() * 1000
            return all(channel.unary_unary("/echo")(body, timeout=300) == body for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(8)))


def test_a_call_in_any_cut_of_frames_is_answered(server: Server) -> None:
    whole = answer(server, PREFACE, SETTINGS, HEADERS, frame(0, 0x1, 1, MESSAGE))
    assert MESSAGE in whole
    padded = frame(0, 0x8, 1, b"\x03" + MESSAGE[:4] + b"\0\0\0")
    in_parts = answer(
        server,
        PREFACE + SETTINGS,
        frame(1, 0x28, 1, b"\x02" + b"\0\0\0\0\x10" + ECHO[:4] + b"\0\0"),  # padded and with a priority
        frame(9, 0x4, 1, ECHO[4:]),
        frame(6, 0, 0, b"8 bytes!"),
        padded,
        frame(2, 0, 1, b"\0\0\0\0\x10"),
        frame(0, 0, 1, MESSAGE[4:]),
        frame(0, 0x1, 1, b""),
    )
    assert MESSAGE in in_parts
    assert frame(6, 1, 0, b"8 bytes!") in in_parts


def test_an_answer_waits_for_the_window_and_goes_on_with_it(server: Server) -> None:
    # A window of 3 bytes for each stream, widened after the call.
    narrow = frame(4, 0, 0, struct.pack(">HI", 4, 3))
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as client:
        client.sendall(PREFACE + narrow + HEADERS + frame(0, 0x1, 1, MESSAGE))
        received = b""
        while frame(0, 0, 1, MESSAGE[:3]) not in received:
            received += client.recv(65536)
        assert b"grpc-status" not in received
        client.sendall(frame(8, 0, 1, struct.pack(">I", 100)))
        while b"grpc-status" not in received:
            received += client.recv(65536)
        assert frame(0, 0, 1, MESSAGE[3:]) in received


def test_a_call_given_up_is_not_answered(server: Server) -> None:
    second = frame(1, 0x4, 3, ECHO) + frame(0, 0x1, 3, b"\0\0\0\0\x02yo")
    received = answer(server, PREFACE, SETTINGS, HEADERS, frame(3, 0, 1, b"\0\0\0\x08"), second)
    assert b"yo" in received
    assert b"hi" not in received


def test_a_call_given_up_while_another_is_answered_is_not_answered(server: Server) -> None:
    narrow = frame(4, 0, 0, struct.pack(">HI", 4, 3))
    second = frame(1, 0x4, 3, ECHO) + frame(0, 0x1, 3, b"\0\0\0\0\x02yo")
    third = frame(1, 0x4, 5, ECHO) + frame(0, 0x1, 5, b"\0\0\0\0\x02so")
    widened = frame(8, 0, 1, struct.pack(">I", 100)) + frame(8, 0, 5, struct.pack(">I", 100))
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as client:
        client.sendall(PREFACE + narrow + HEADERS + frame(0, 0x1, 1, MESSAGE) + second + third)
        client.sendall(frame(3, 0, 3, b"\0\0\0\x08") + widened)
        received = b""
        while received.count(b"grpc-status") < 2:
            received += client.recv(65536)
        assert frame(0, 0, 5, b"\0\0\0") in received
        assert struct.pack(">BBI", 1, 0x4, 3) not in received  # no headers of an answer to the second


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",),
        (PREFACE, SETTINGS, frame(0, 0x1, 1, MESSAGE)),  # data before headers
        (PREFACE, SETTINGS, frame(1, 0x5, 2, ECHO)),  # a number that only servers open
        (PREFACE, SETTINGS, frame(1, 0x5, 0, ECHO)),
        (PREFACE, SETTINGS, frame(9, 0x4, 1, ECHO)),  # a continuation of nothing
        (PREFACE, SETTINGS, frame(1, 0, 1, ECHO), frame(0, 0x1, 1, MESSAGE)),  # data amid headers
        (PREFACE, SETTINGS, frame(5, 0x4, 1, ECHO)),  # a promise from a client
        (PREFACE, SETTINGS, frame(1, 0x4, 1, b"\xff\xff\xff\xff\xff\xff\xff")),
        (PREFACE, SETTINGS, frame(1, 0xC, 1, b"\xff")),  # more padding than frame
        (PREFACE, frame(4, 0, 0, b"12345")),
        (PREFACE, frame(4, 0, 0, struct.pack(">HI", 4, 2**31))),
        (PREFACE, frame(4, 0, 0, struct.pack(">HI", 5, 1))),
        (PREFACE, SETTINGS, frame(4, 0, 0, b""), frame(1, 0x5, 3, ECHO), frame(1, 0x4, 1, ECHO)),  # backwards
    ],
)
def test_a_breach_of_the_protocol_ends_the_connection(server: Server, call: Call, parts: tuple[bytes, ...]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as client:
        client.sendall(b"".join(parts))
        received = b""
        try:
            while part := client.recv(65536):
                received += part
        except ConnectionResetError:
            pass
    assert MESSAGE not in received
    assert call("/echo", b"others go on") == b"others go on"


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0\x09hi", b"\0\0\0\0\x01hi", b"\x01\0\0\0\x02hi"])
def test_a_request_that_is_not_one_whole_message_is_an_error(server: Server, body: bytes) -> None:
    received = answer(server, PREFACE, SETTINGS, HEADERS, frame(0, 0x1, 1, body))
    assert b"grpc-status\x02%d" % INTERNAL in received


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.builds(frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=20)),
        ),
        max_size=8,
    )
)
def test_whatever_a_client_sends_others_are_still_answered(server: Server, parts: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as client:
        client.sendall(PREFACE + b"".join(parts))
        client.shutdown(socket.SHUT_WR)
        try:
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert MESSAGE in answer(server, PREFACE, SETTINGS, HEADERS, frame(0, 0x1, 1, MESSAGE))
