"""The WSGI application: guard, identify, authorize, remembered creations, then the recorded layer or moto."""

from __future__ import annotations

import hmac
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from moto import __version__ as moto_version
from moto.core.exceptions import ServiceException
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.exceptions import HTTPException

from ringfence.local.aws_server.authorization import Authorization
from ringfence.local.aws_server.coverage import emulated
from ringfence.local.aws_server.creations import CREATE_HEADER, Creations
from ringfence.local.aws_server.guard import Refused, admit
from ringfence.local.aws_server.inventory import Inventory
from ringfence.local.aws_server.journal import Journal
from ringfence.local.aws_server.recorded.registry import amendment, handler, report
from ringfence.local.aws_server.recorded.store import PASS, Context, Store, new_uuid, now
from ringfence.local.aws_server.validation import problems
from ringfence.local.aws_server.wire import ApiError, Call, Reply, Unidentified, identify, refusal, serialize
from ringfence.local.operator_key import OperatorKey

# A gate sees each identified call before anything acts on it, and answers it itself or lets it pass with None.
Gate = Callable[[Call], Reply | None]
# Calls that wait inside moto by design; holding the lock meanwhile would stop everybody else.
_WAITING = frozenset({("sqs", "ReceiveMessage")})
# Own paths that anybody may ask. Sandboxes reach the server through a relay, so the others are the operator's.
_OPEN = frozenset({"/ringfence/health"})


class Application:
    """One account's AWS on loopback.

    moto's backends aren't written for concurrent use and all work is done under one interpreter lock anyway, so one
    lock serialises everything that reads or changes the account's state.
    """

    def __init__(
        self,
        account: str,
        journal: Journal,
        operator: OperatorKey,
        gates: Sequence[Gate] = (),
        clock: Callable[[], datetime] = now,
    ):
        """operator: the one long-lived key that is taken; clock: what sessions' times and conditions go by."""
        self.account = account
        self.boot_id = new_uuid()
        self.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._journal = journal
        self._operator = operator
        self._lock = threading.RLock()
        self._store = Store()
        self._authorize = Authorization(operator, self._store, clock)
        self._gates: tuple[Gate, ...] = (self._authorize, *gates)
        self._creations = Creations()
        self._inventory = Inventory(account)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Reply]] = {
            ("GET", "/ringfence/health"): self._health,
            ("GET", "/ringfence/recorded"): self._recorded,
            ("GET", "/ringfence/inventory"): self._left,
            ("GET", "/ringfence/creations"): self._made,
            ("POST", "/ringfence/reset"): self._reset,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began = time.monotonic()
        call: Call | None = None
        try:
            body = admit(environ)
            path = str(environ.get("PATH_INFO", ""))
            if path == "/ringfence" or path.startswith("/ringfence/"):
                layer, reply = "control", self._control(environ, path)
            else:
                call = identify(environ, body, self.account)
                layer, reply = self._answer(call)
        except Refused as error:
            layer, reply = "refused", refusal(None, error.status, error.code, error.message)
        except Unidentified as error:
            layer, reply = "refused", refusal(None, 501, "NotImplemented", f"{error}. The embedded target refuses it.")
        except Exception:
            self._journal.failure(call, traceback.format_exc())
            layer, reply = "failed", _failure(call)
        self._journal.line(environ, call, layer, reply, time.monotonic() - began)
        headers = [
            (k, v) for k, v in reply.headers if k.lower() not in ("content-length", "connection", "date", "server")
        ]
        if environ["REQUEST_METHOD"] != "HEAD":
            headers.append(("Content-Length", str(len(reply.body))))
        else:
            headers += [(k, v) for k, v in reply.headers if k.lower() == "content-length"]
        start_response(f"{reply.status} {_phrase(reply.status)}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]

    def _answer(self, call: Call) -> tuple[str, Reply]:
        """Which layer answered a call, and how."""
        with self._lock:
            for gate in self._gates:
                refused = gate(call)
                if refused is not None:
                    return "gate", refused
        if call.header(CREATE_HEADER):
            layers: list[str] = []

            def perform() -> Reply:
                layer, reply = self._dispatch(call)
                layers.append(layer)
                return reply

            reply, remembered = self._creations.once(call, perform)
            return ("remembered", reply) if remembered else (layers[0], reply)
        layer, reply = self._dispatch(call)
        self._creations.forget(call, reply)
        return layer, reply

    def _dispatch(self, call: Call) -> tuple[str, Reply]:
        if (call.service, call.name) in _WAITING:
            return "moto", self._emulate(call)
        with self._lock:
            answer = handler(call.service, call.name)
            if answer is not None:
                reply = self._record(call, answer)
                if reply is not None:
                    return "recorded", reply
            reply = self._emulate(call)
            amend = amendment(call.service, call.name)
            if amend is not None and reply.status < 300:
                reply = amend(Context(self._store, call), reply)
            return "moto", reply

    def _record(self, call: Call, answer: Any) -> Reply | None:
        """The recorded layer's reply; None when the resource isn't one of its own and moto may know it."""
        wrong = problems(call)
        if wrong:
            code = _validation_code(call)
            return serialize(call, ApiError(code, f"{len(wrong)} validation error(s): " + "; ".join(wrong)))
        try:
            result = answer(Context(self._store, call))
        except ServiceException as error:
            return serialize(call, error)
        except HTTPException as error:
            # The errors of moto's older services come as whole responses.
            return Reply(error.code or 500, tuple(error.get_headers()), (error.get_body() or "").encode())
        if result is not PASS:
            return serialize(call, result)
        if emulated(call.service, call.name):
            return None
        return serialize(call, ApiError(_missing_code(call), "No such resource."))

    def _emulate(self, call: Call) -> Reply:
        """moto's reply, or a refusal with status 501 for what it has no code for."""
        text = f"{call.service} {call.name} is neither emulated nor recorded by the embedded target."
        if not emulated(call.service, call.name):
            return refusal(call, 501, "NotImplemented", text)
        environ = {**call.environ, "wsgi.input": BytesIO(call.body), "CONTENT_LENGTH": str(len(call.body))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        captured: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], _info: Any = None) -> None:
            captured.update(status=int(status.split(" ", 1)[0]), headers=tuple(headers))

        try:
            chunks = self._moto(environ, start)
            body = b"".join(chunks)
        except NotImplementedError:
            return refusal(call, 501, "NotImplemented", text)
        return Reply(captured["status"], captured["headers"], body)

    def _control(self, environ: dict[str, Any], path: str) -> Reply:
        route = self._routes.get((environ["REQUEST_METHOD"], path))
        if route is None:
            known = ", ".join(f"{method} {path}" for method, path in self._routes)
            return Reply.json(404, {"message": f"no such path; there are {known}"})
        if path not in _OPEN and not self._is_operator(environ):
            return Reply.json(403, {"message": "send `Authorization: Bearer` with the operator's secret key"})
        return route(environ)

    def _is_operator(self, environ: dict[str, Any]) -> bool:
        given = str(environ.get("HTTP_AUTHORIZATION", "")).encode("utf-8", "replace")
        return hmac.compare_digest(given, f"Bearer {self._operator.secret_access_key}".encode())

    def _health(self, _environ: dict[str, Any]) -> Reply:
        about = {
            "boot_id": self.boot_id,
            "started_at": self.started_at,
            "moto_version": moto_version,
            "pid": os.getpid(),
        }
        return Reply.json(200, {**about, "account": self.account})

    def _recorded(self, _environ: dict[str, Any]) -> Reply:
        with self._lock:
            return Reply.json(200, {"recorded_not_emulated": report(self._store)})

    def _left(self, _environ: dict[str, Any]) -> Reply:
        with self._lock:
            return Reply.json(200, self._inventory.take(self._store))

    def _made(self, environ: dict[str, Any]) -> Reply:
        urn = parse_qs(str(environ.get("QUERY_STRING", ""))).get("urn", [""])[0]
        return Reply.json(200, {"creations": self._creations.shown(urn)})

    def _reset(self, _environ: dict[str, Any]) -> Reply:
        with self._lock:
            self._inventory.reset()
            self._store.clear()
            self._creations.clear()
            self._authorize.forget()
        return Reply.json(200, {"status": "reset"})


def _failure(call: Call | None) -> Reply:
    """The reply to a call that broke something here or in moto."""
    message = "The embedded target failed; the reason is in its log."
    try:
        return refusal(call, 500, "InternalFailure", message)
    except Exception:
        # The serializer itself is what broke.
        return refusal(None, 500, "InternalFailure", message)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _validation_code(call: Call) -> str:
    """How a service names a request that its model refuses."""
    shapes = {shape.name for shape in call.operation.error_shapes}
    for code in (
        "InvalidParameterException",
        "ValidationException",
        "InvalidRequestException",
        "InvalidParameterValue",
    ):
        if code in shapes:
            return code
    return "ValidationException"


def _missing_code(call: Call) -> str:
    """How a service names a resource that isn't there."""
    shapes = [shape.name for shape in call.operation.error_shapes]
    return next((name for name in shapes if "NotFound" in name), "ResourceNotFoundException")
