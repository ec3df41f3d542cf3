"""A gRPC server for unary calls over one engine's connection: HTTP/2 (RFC 9113) as far as gRPC uses it.

The engine asks a pack twice about every resource and waits for each answer. The general gRPC library hands every call
from thread to thread, which takes longer than the rules do; here the thread that reads a call answers it (measured in
docs/decisions). Any breach of the protocol ends the connection, which fails the preview.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from ringfence.review.hpack import Decoder

Handler = Callable[[bytes], bytes]
# gRPC status codes (grpc/grpc, doc/statuscodes.md).
OK, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 0, 3, 12, 13
# What an error may tell: it travels in a header, percent-encoded, and a frame of headers holds 16 KiB.
_MAX_TOLD = 4000
# The same limit for a message as the engine's own (400 MiB).
MAX_MESSAGE_BYTES = 400 * 1024 * 1024

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    *(0, 1, 3, 4, 5, 6, 7, 8),
    9,
)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_DEFAULT_WINDOW, _MAX_WINDOW = 65_535, 2**31 - 1
_LEAST_FRAME, _OWN_MAX_FRAME = 16_384, 2**24 - 1
_FRAME_HEAD = struct.Struct(">HBBBI")
# :status 200 from the static table, content-type as a literal that no table keeps.
_ANSWER_HEADERS = b"\x88\x0f\x10\x10application/grpc"


class RpcError(Exception):
    """A call's answer that is an error. status: a gRPC status code; the message is shown to the user."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass
class _Stream:
    """One call while it arrives and is answered. window: bytes of data that may be sent; complete: nothing more may come."""

    number: int
    window: int
    path: str = ""
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False


class Server:
    """Serves `methods` (path → from request to answer, both as bytes) on a loopback port. A handler raises RpcError to
    answer with an error. Calls are answered one at a time, whatever connection they come over."""

    def __init__(self, methods: Mapping[str, Handler]):
        self.methods = methods
        self.answering = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Accepts connections from now on, until the process ends."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                _Connection(connection, self).run()
            except (OSError, EOFError, ValueError):
                # Gone, or not speaking the protocol: there is nobody to answer, and closing is what fails its calls.
                return


class _Connection:
    def __init__(self, connection: socket.socket, server: Server):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._server = connection, server
        self._unread = bytearray()
        self._headers = Decoder()
        self._streams: dict[int, _Stream] = {}
        self._complete: deque[_Stream] = deque()
        self._last = 0
        self._received = 0
        self._window = self._stream_window = _DEFAULT_WINDOW
        self._max_frame = _LEAST_FRAME

    def run(self) -> None:
        """Answers calls until the other end closes. Raises EOFError then, ValueError for a breach of the protocol."""
        if self._read(len(_PREFACE)) != _PREFACE:
            raise ValueError("no HTTP/2 preface")
        settings = struct.pack(">HIHI", _INITIAL_WINDOW_SIZE, _MAX_WINDOW, _MAX_FRAME_SIZE, _OWN_MAX_FRAME)
        grown = struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW)
        self._socket.sendall(_frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, grown))
        while True:
            while self._complete:
                with self._server.answering:
                    self._answer(self._complete.popleft())
            self._receive()

    def _read(self, length: int) -> bytes:
        while len(self._unread) < length:
            part = self._socket.recv(1 << 18)
            if not part:
                raise EOFError
            self._unread += part
        data = bytes(self._unread[:length])
        del self._unread[:length]
        return data

    # Receiving.

    def _frame(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        high, low, kind, flags, number = _FRAME_HEAD.unpack(self._read(_FRAME_HEAD.size))
        return kind, flags, number & _MAX_WINDOW, self._read(high << 8 | low)

    def _receive(self) -> None:
        """Reads one frame and takes it in."""
        kind, flags, number, payload = self._frame()
        if kind == _DATA:
            self._data(number, flags, payload)
        elif kind == _HEADERS:
            self._open(number, flags, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            self._widen(number, int.from_bytes(payload, "big") & _MAX_WINDOW)
        elif kind == _RST_STREAM:
            self._streams.pop(number, None)
        elif kind in (_PUSH_PROMISE, _CONTINUATION):
            raise ValueError("a frame of a kind that doesn't belong here")

    def _open(self, number: int, flags: int, payload: bytes) -> None:
        block = _unpadded(payload, flags)
        if flags & _PRIORITY:
            block = block[5:]
        ended = flags & _END_HEADERS
        while not ended:
            kind, more, same, rest = self._frame()
            if kind != _CONTINUATION or same != number or len(block) > _OWN_MAX_FRAME:
                raise ValueError("a header block isn't continued")
            block += rest
            ended = more & _END_HEADERS
        fields = self._headers.fields(block)
        stream = self._streams.get(number)
        if stream is None:
            if number <= self._last or not number % 2:
                raise ValueError("a stream of a number that may not be opened")
            self._last = number
            stream = self._streams[number] = _Stream(number, self._stream_window)
            stream.path = next((value.decode("ascii") for name, value in fields if name == b":path"), "")
        self._taken(stream, flags)

    def _taken(self, stream: _Stream, flags: int) -> None:
        if stream.complete:
            raise ValueError("a stream goes on after its end")
        if flags & _END_STREAM:
            stream.complete = True
            self._complete.append(stream)

    def _data(self, number: int, flags: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > _MAX_WINDOW // 2:
            self._socket.sendall(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        stream = self._streams.get(number)
        if stream is None:
            if number > self._last:
                raise ValueError("data of a stream that was never opened")
            return
        stream.body += _unpadded(payload, flags)
        if len(stream.body) > MAX_MESSAGE_BYTES:
            raise ValueError("a message is too long")
        self._taken(stream, flags)

    def _settings(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise ValueError("settings of a wrong length")
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE and value <= _MAX_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == _MAX_FRAME_SIZE and _LEAST_FRAME <= value <= _OWN_MAX_FRAME:
                self._max_frame = value
            elif name in (_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE):
                raise ValueError("a setting out of its range")
        self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))

    def _widen(self, number: int, by: int) -> None:
        if not number:
            self._window += by
        elif number in self._streams:
            self._streams[number].window += by

    # Answering.

    def _answer(self, stream: _Stream) -> None:
        if stream.number not in self._streams:
            return
        try:
            answer = self._handled(stream)
        except RpcError as error:
            text = quote(str(error)[:_MAX_TOLD], safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}").encode("ascii")
            trailers = _literal(b"grpc-status", b"%d" % error.status) + _literal(b"grpc-message", text)
            self._socket.sendall(
                _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream.number, _ANSWER_HEADERS + trailers)
            )
        else:
            self._send(stream, b"\0" + struct.pack(">I", len(answer)) + answer)
        self._streams.pop(stream.number, None)

    def _handled(self, stream: _Stream) -> bytes:
        handler = self._server.methods.get(stream.path)
        if handler is None:
            raise RpcError(UNIMPLEMENTED, f"{stream.path} is unknown")
        body = bytes(stream.body)
        if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
            raise RpcError(INTERNAL, "the request isn't one uncompressed message")
        return handler(body[5:])

    def _send(self, stream: _Stream, data: bytes) -> None:
        sent = _frame(_HEADERS, _END_HEADERS, stream.number, _ANSWER_HEADERS)
        while data:
            room = min(self._max_frame, self._window, stream.window)
            if room <= 0:
                self._socket.sendall(sent)
                sent = b""
                self._receive()
                if stream.number not in self._streams:
                    return
                continue
            part, data = data[:room], data[room:]
            self._window -= len(part)
            stream.window -= len(part)
            sent += _frame(_DATA, 0, stream.number, part)
        trailers = _literal(b"grpc-status", b"0")
        self._socket.sendall(sent + _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream.number, trailers))


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return _FRAME_HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, number) + payload


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ValueError("a frame is padded with more than it holds")
    return payload[1 : len(payload) - payload[0]]


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that no table keeps."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)])
    rest, made = len(text) - 127, bytearray([127])
    while rest >= 128:
        made.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*made, rest])
