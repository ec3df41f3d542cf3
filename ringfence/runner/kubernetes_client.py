"""The official Kubernetes client in threads: calls that are retried while the cluster settles, watches that miss nothing.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from ringfence.runner.executor import ExecutorError
from ringfence.runner.threads import in_thread

T = TypeVar("T")
Object = dict[str, Any]
CALL_THREADS = 24
# Each sandbox that is waited for holds one thread and one connection.
WATCH_THREADS = 1024
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
# Within this a new namespace has its service account, its quota its count, and the policies' caches know both.
SETTLE_SECONDS = 45.0
# The server ends a watch after this long; it is taken up again where it ended.
WATCH_SECONDS = 50
# What the API server says while it doesn't know yet what was made a moment ago.
_UNSETTLED = (
    "error looking up service account",
    "status unknown for quota",
    "failed to configure binding",
    "cannot create resource",
    "cannot patch resource",
    "cannot get resource",
    'cannot list resource "pods"',
    'cannot watch resource "pods"',
    "not yet ready to handle request",
    "no API token found",
)


class CallError(ExecutorError):
    """The API server's answer to one call. status: of HTTP, 0 when there was none; reason: Kubernetes' own word."""

    def __init__(self, what: str, status: int, reason: str, message: str):
        self.status, self.reason = status, reason
        super().__init__(f"{what}: {message or reason or f'no answer ({status})'}")

    @property
    def passing(self) -> bool:
        """Whether the same call may well succeed a moment later."""
        unsettled = self.status == 403 and any(text in str(self) for text in _UNSETTLED)
        return self.status in (0, 429) or self.status >= 500 or unsettled or self.reason == "Conflict"


def connect(kubeconfig: Path | None, context: str | None = None) -> client.ApiClient:
    """A client for the cluster of a kubeconfig, or for the one that this process runs in when that is None.

    Raises ExecutorError when the kubeconfig can't be used.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(str(kubeconfig), context=context, client_configuration=configuration)
    except config.ConfigException as error:
        where = kubeconfig or "this process's own cluster"
        raise ExecutorError(f"{where}: {error}\n    remedy: name a kubeconfig that kubectl can use") from None
    configuration.connection_pool_maxsize = CALL_THREADS + WATCH_THREADS
    return client.ApiClient(configuration)


class Cluster:
    """Calls and watches on one cluster, many at once. Answers are plain dictionaries."""

    def __init__(self, api_client: client.ApiClient):
        self.core = client.CoreV1Api(api_client)
        self.rbac = client.RbacAuthorizationV1Api(api_client)
        self.networking = client.NetworkingV1Api(api_client)
        self.coordination = client.CoordinationV1Api(api_client)
        self._calls = ThreadPoolExecutor(CALL_THREADS, "kubernetes-call")
        self._watches = ThreadPoolExecutor(WATCH_THREADS, "kubernetes-watch")

    def once(self, what: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Object:
        """One call, made now and in this thread. Raises CallError."""
        with _told(what):
            timeout = (CONNECT_SECONDS, READ_SECONDS)
            answer = method(*args, **kwargs, _preload_content=False, _request_timeout=timeout)
            return json.loads(answer.data)

    def text(self, what: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        """As `once`, for an answer that is plain text."""
        with _told(what):
            timeout = (CONNECT_SECONDS, READ_SECONDS)
            answer = method(*args, **kwargs, _preload_content=False, _request_timeout=timeout)
            return answer.data.decode("utf-8", errors="replace")

    async def call(self, what: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Object:
        """One call. Raises CallError at once when the server refuses it, and after SETTLE_SECONDS when it only can't yet.

        A name that is taken counts as made when an earlier try of this very call got no answer.
        """
        ends = time.monotonic() + SETTLE_SECONDS
        pause, unanswered = 0.05, False
        while True:
            try:
                return await in_thread(self.once, what, method, *args, pool=self._calls, **kwargs)
            except CallError as error:
                if error.reason == "AlreadyExists" and unanswered:
                    return {}
                if not error.passing or time.monotonic() + pause > ends:
                    raise
                unanswered = unanswered or error.status == 0 or error.status >= 500
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (spreads retries)
            pause = min(pause * 1.6, 2.0)

    async def in_call_thread(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A blocking call of several, in one of the threads for calls."""
        return await in_thread(call, *args, pool=self._calls, **kwargs)

    async def until(
        self, what: str, decide: Callable[[Object | None], T | None], seconds: float | None, listing: Callable[..., Any],
        *args: Any, name: str,
    ) -> T | None:  # fmt: skip
        """Watches the one object `name` of a listing until `decide` gives an answer, and returns that.

        decide: is shown the object now and after each change, None when there is none. None comes back after `seconds`.
        Nothing is missed: each look starts with the object as it is, and the watch goes on from exactly there.
        """
        stop = threading.Event()
        ends = None if seconds is None else time.monotonic() + seconds
        loop = asyncio.get_running_loop()
        watching = loop.run_in_executor(
            self._watches, lambda: self._watch(what, decide, ends, stop, listing, args, f"metadata.name={name}")
        )
        try:
            return await asyncio.shield(watching)
        except asyncio.CancelledError:
            # It ends at the object's next change, at the latest when the server ends the watch.
            stop.set()
            watching.add_done_callback(lambda future: future.cancelled() or future.exception())
            raise

    def _watch(
        self, what: str, decide: Callable[[Object | None], T | None], ends: float | None, stop: threading.Event,
        listing: Callable[..., Any], args: tuple[Any, ...], selector: str,
    ) -> T | None:  # fmt: skip
        failed, silent_since = 0, time.monotonic()
        while not stop.is_set():
            left = WATCH_SECONDS if ends is None else min(WATCH_SECONDS, ends - time.monotonic())
            if left <= 0:
                return None
            try:
                listed = self.once(what, listing, *args, field_selector=selector)
                failed, silent_since = 0, time.monotonic()
                found = decide(listed["items"][0] if listed["items"] else None)
                if found is not None:
                    return found
                version = listed["metadata"]["resourceVersion"]
                for seen in self._changes(what, listing, args, selector, version, max(1, int(left))):
                    found = decide(seen)
                    if found is not None or stop.is_set():
                        return found
            except CallError as error:
                # 410 Gone: the history from there on is no longer kept; the next listing has the state of now.
                if not error.passing and error.status != 410:
                    raise
                if time.monotonic() - silent_since > SETTLE_SECONDS:
                    raise
                failed += 1
                stop.wait(min(0.1 * 2**failed, 5.0))
        return None

    def _changes(
        self, what: str, listing: Callable[..., Any], args: tuple[Any, ...], selector: str, version: str, seconds: int
    ) -> Iterator[Object | None]:
        """Each state of the object after `version`, None for its removal, until the server ends the watch."""
        with _told(what):
            answer = listing(
                *args,
                field_selector=selector,
                resource_version=version,
                timeout_seconds=seconds,
                watch=True,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, seconds + READ_SECONDS),
            )
            try:
                for line in _lines(answer):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise CallError(
                            what, int(status.get("code", 0)), status.get("reason", ""), status.get("message", "")
                        )
                    yield None if event["type"] == "DELETED" else event["object"]
            finally:
                answer.close()


class _told:
    """Turns whatever the client raises into a CallError that says what was wanted."""

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiException):
            status = _status(error.body)
            raise CallError(
                self._what, error.status or 0, status.get("reason", ""), status.get("message") or str(error.reason)
            ) from None
        if isinstance(error, (urllib3.exceptions.HTTPError, json.JSONDecodeError, OSError)):
            raise CallError(self._what, 0, "", f"no answer from the API server: {type(error).__name__}") from None


def _status(body: Any) -> Object:
    """The `Status` object that the API server explains itself with; empty when it isn't one."""
    try:
        value = json.loads(body)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.stream(amt=1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
