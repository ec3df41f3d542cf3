"""The HTTP server: threaded, on 127.0.0.1 only, silent, and able to let requests under way finish."""

from __future__ import annotations

import threading
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import ThreadedWSGIServer

from ringfence.local.aws_server.app import Application


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    # Seconds that a connection may stay silent.
    timeout = 120

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: the journal has the requests, and werkzeug's lines hold query strings."""


class LoopbackServer(ThreadedWSGIServer):
    """Serves the application on 127.0.0.1. `port` tells which port; 0 was replaced by a free one."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, application: Application):
        super().__init__("127.0.0.1", port, application, handler=_Handler)
        self._under_way = 0
        self._idle = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._idle:
            self._under_way += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def drain(self, seconds: float) -> bool:
        """Waits until every accepted request is answered; False when the time was not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: self._under_way == 0, timeout=seconds)
