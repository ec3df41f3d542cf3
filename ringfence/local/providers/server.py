"""Pulumi's gRPC ResourceProvider protocol in front of a `Backend`.

Written against engine v3.220 (sdk/go/common/resource/plugin/provider_plugin.go says what it sends and expects). What the
protocol asks for and a backend doesn't see: secrets, unknown values, ``ignoreChanges``, detailed diffs, partly failed
operations, cancellation, and the end of the engine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from ringfence.local.providers.base import Backend, CheckFailure, DiffResult, NotFound, PartialCreate, ProviderError
from ringfence.local.providers.paths import MISSING, format_path, get_path, ignored, parse_path, restore_paths
from ringfence.local.providers.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2
from ringfence.local.providers.values import Mask, decode, decode_with_mask, encode, join_masks, mask_of, secret_texts

# The engine runs up to 16 operations at once by default; many of ours wait for another server.
WORKERS = 32
# Seconds between two looks at whether the engine is still there, and until calls in flight are given up at the end.
WATCH_INTERVAL = 0.5
GRACE = 1.0
# The engine sets the same limit: 400 MiB a message (sdk/go/common/util/rpcutil).
MESSAGE_LIMIT = 400 * 1024 * 1024
# Provider settings that say how an API is reached, not what stands behind it: a new port or token is no change.
CONNECTION_SETTINGS = frozenset(
    {"accessKey", "endpoints", "kubeconfig", "pluginDownloadURL", "profile", "secretKey", "token", "version"}
)
# Shorter secrets would blank out ordinary words of a message.
SHORTEST_BLANKED = 4

_KIND = provider_pb2.PropertyDiff.Kind


def detailed_diff(
    result: DiffResult, old_inputs: dict[str, Any], old_outputs: dict[str, Any], news: dict[str, Any]
) -> dict[str, provider_pb2.PropertyDiff]:
    """What the engine shows of a diff: for each path whether it is added, deleted or changed, and whether it replaces."""
    details = {}
    for text in dict.fromkeys((*result.changed, *result.replaces)):
        path = parse_path(text)
        new, old = get_path(news, path), get_path(old_inputs, path)
        # A difference that the inputs don't show is one between the live thing and the inputs.
        between_inputs = new is not old and new != old
        if not between_inputs:
            old = get_path(old_outputs, path)
        action = "ADD" if old is MISSING else "DELETE" if new is MISSING else "UPDATE"
        kind = f"{action}_REPLACE" if text in result.replaces else action
        details[format_path(path)] = provider_pb2.PropertyDiff(kind=_KIND.Value(kind), inputDiff=between_inputs)
    return details


def _top_level(paths: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(str(parse_path(path)[0]) for path in paths))


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Provider settings with their real types: the SDK sends every one that is not a string as JSON text."""
    settings = {}
    for key, value in values.items():
        if isinstance(value, str) and (value in ("true", "false") or value[:1] in ("{", "[")):
            with suppress(ValueError):
                value = json.loads(value)
        settings[key] = value
    return settings


class Call:
    """One request: what it is about, and which texts in it must not be shown."""

    def __init__(self, backend: Backend, request: Any, verb: str):
        self.type: str = request.type or request.urn.split("::")[2].split("$")[-1]
        self.urn: str = request.urn
        self.id: str = getattr(request, "id", "")
        self.verb = verb
        self._always_secret = mask_of(backend.secret_outputs(self.type))
        self._secrets: set[str] = set()

    def values(self, struct: Any) -> tuple[dict[str, Any], Mask]:
        """Decoded values with the mask of the secret ones, those included that are secret by their type."""
        values, mask = decode_with_mask(struct)
        mask = join_masks(mask, self._always_secret)
        self._secrets |= secret_texts(values, mask)
        return values, mask

    def mask(self, *masks: Mask) -> Mask:
        """The mask of an answer."""
        return join_masks(self._always_secret, *masks)

    def blank(self, text: str) -> str:
        """`text` without the secrets that this request carried."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= SHORTEST_BLANKED:
                text = text.replace(secret, "[secret]")
        return text

    def __str__(self) -> str:
        name = self.urn.rsplit("::", 1)[-1]
        return f"{self.verb} {self.type} {name!r}"


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine from a backend. `name` and `version` are the plugin's own."""

    def __init__(self, backend: Backend, name: str, version: str):
        self.backend = backend
        self.name = name
        self.version = version
        self.cancelled = threading.Event()

    # The plugin itself

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Empty:
        return Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": self.name, "version": self.version}))

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Empty:
        """Operations under way go on to their end, or stop waiting if the backend can; new ones are refused."""
        self.cancelled.set()
        cancel: Callable[[], None] | None = getattr(self.backend, "cancel", None)
        if cancel is not None:
            cancel()
        return Empty()

    # The provider's own settings

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        olds, news = decode(request.old_inputs), decode(request.news)
        news = restore_paths(news, olds, request.ignoreChanges)
        keys = (key for key in {*olds, *news} if key not in CONNECTION_SETTINGS)
        changed = sorted(key for key in keys if olds.get(key) is not news.get(key) and olds.get(key) != news.get(key))
        return self._diff_response(DiffResult(tuple(format_path([key]) for key in changed)), olds, {}, news)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        settings, mask = decode_with_mask(request.args)
        if not settings:
            settings = {key.rsplit(":", 1)[-1]: value for key, value in request.variables.items()}
        try:
            self.backend.configure(_settings(settings))
        except Exception as error:
            text = str(error) if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}"
            for secret in secret_texts(settings, mask):
                text = text.replace(secret, "[secret]")
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"configuring the {self.name} provider: {text}")
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    # Resources

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._call(request, context, "checking") as call:
            olds, _ = call.values(request.olds)
            news, mask = call.values(request.news)
            inputs, failures = self.backend.check(call.type, call.urn, olds, news, request.randomSeed)
            return provider_pb2.CheckResponse(
                inputs=encode(inputs, call.mask(mask)),
                failures=[self._failure(failure, call) for failure in failures],
            )

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._call(request, context, "comparing") as call:
            old_inputs, _ = call.values(request.old_inputs)
            old_outputs, _ = call.values(request.olds)
            news, _ = call.values(request.news)
            news = ignored(news, old_inputs, old_outputs, request.ignoreChanges)
            result = self.backend.diff(call.type, call.urn, call.id, old_inputs, old_outputs, news)
            return self._diff_response(result, old_inputs, old_outputs, news)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._call(request, context, "creating") as call:
            inputs, mask = call.values(request.properties)
            with self._partial(call, context, mask, inputs):
                id_, outputs = self.backend.create(call.type, call.urn, inputs, request.preview)
            if request.preview:
                id_ = ""
            elif not id_:
                raise ProviderError("the API gave no id for it")
            return provider_pb2.CreateResponse(id=id_, properties=encode(outputs, call.mask(mask)))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._call(request, context, "reading") as call:
            inputs, mask = call.values(request.inputs)
            outputs, outputs_mask = call.values(request.properties)
            found = self.backend.read(call.type, call.urn, call.id, inputs, outputs)
            if found is None:
                return provider_pb2.ReadResponse()
            return provider_pb2.ReadResponse(
                id=found.id,
                inputs=encode(found.inputs, call.mask(mask)),
                properties=encode(found.outputs, call.mask(mask, outputs_mask)),
            )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._call(request, context, "updating") as call:
            old_inputs, _ = call.values(request.old_inputs)
            old_outputs, _ = call.values(request.olds)
            news, mask = call.values(request.news)
            news = ignored(news, old_inputs, old_outputs, request.ignoreChanges)
            with self._partial(call, context, mask, news):
                outputs = self.backend.update(
                    call.type, call.urn, call.id, old_inputs, old_outputs, news, request.preview
                )
            return provider_pb2.UpdateResponse(properties=encode(outputs, call.mask(mask)))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Empty:
        with self._call(request, context, "deleting") as call:
            inputs, _ = call.values(request.old_inputs)
            outputs, _ = call.values(request.properties)
            self.backend.delete(call.type, call.urn, call.id, inputs, outputs)
            return Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        args, mask = decode_with_mask(request.args)
        try:
            result = self.backend.invoke(request.tok, args)
        except Exception as error:
            self._abort(context, f"calling {request.tok}", error, str)
        # A function's answer may repeat its arguments anywhere: with a secret among them, all of it is secret.
        return provider_pb2.InvokeResponse(**{"return": encode(result, True if mask else None)})

    # Parts

    @contextmanager
    def _call(self, request: Any, context: grpc.ServicerContext, verb: str) -> Iterator[Call]:
        """Runs one operation; whatever goes wrong in it becomes a gRPC error with a readable message."""
        if self.cancelled.is_set():
            context.abort(grpc.StatusCode.CANCELLED, f"{verb} {request.urn}: not begun, since the run was interrupted")
        call = Call(self.backend, request, verb)
        try:
            yield call
        except Exception as error:
            if context.code() is not None:  # aborted already, with its own message
                raise
            self._abort(context, str(call), error, call.blank)

    @contextmanager
    def _partial(self, call: Call, context: grpc.ServicerContext, mask: Mask, inputs: dict[str, Any]) -> Iterator[None]:
        """Turns PartialCreate into the detail that makes the engine remember the half-made thing."""
        try:
            yield
        except PartialCreate as partial:
            reason = call.blank(f"{call}: {partial.message}")
            detail = AnyMessage()
            detail.Pack(
                provider_pb2.ErrorResourceInitFailed(
                    id=partial.id,
                    properties=encode(partial.outputs, call.mask(mask)),
                    inputs=encode(inputs, call.mask(mask)),
                    reasons=[reason],
                ),
                type_url_prefix="type.googleapis.com/",
            )
            code = grpc.StatusCode.UNKNOWN
            status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(code, reason)

    @staticmethod
    def _abort(context: grpc.ServicerContext, what: str, error: Exception, blank: Callable[[str], str]) -> NoReturn:
        """A refusal is definite (nothing was changed); after any other failure the outcome is not known."""
        if isinstance(error, NotFound):
            code, text = grpc.StatusCode.NOT_FOUND, str(error)
        elif isinstance(error, ProviderError):
            code, text = grpc.StatusCode.FAILED_PRECONDITION, str(error)
        else:
            code, text = grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"
        context.abort(code, blank(f"{what}: {text}"))

    @staticmethod
    def _failure(failure: CheckFailure, call: Call) -> Any:
        return provider_pb2.CheckFailure(property=failure.property, reason=call.blank(failure.reason))

    @staticmethod
    def _diff_response(
        result: DiffResult, old_inputs: dict[str, Any], old_outputs: dict[str, Any], news: dict[str, Any]
    ) -> Any:
        changed = bool(result.changed or result.replaces)
        response = provider_pb2.DiffResponse
        return response(
            changes=response.DIFF_SOME if changed else response.DIFF_NONE,
            diffs=_top_level((*result.changed, *result.replaces)),
            replaces=_top_level(result.replaces),
            deleteBeforeReplace=result.delete_before_replace,
            detailedDiff=detailed_diff(result, old_inputs, old_outputs, news),
            hasDetailedDiff=changed,
        )


def start(backend: Backend, name: str, version: str) -> tuple[grpc.Server, int]:
    """Start serving on a free loopback port; returns the server and the port."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(ThreadPoolExecutor(max_workers=WORKERS), options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(backend, name, version), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def engine_is_gone(parent: int, engine: tuple[str, int] | None) -> bool:
    """Whether the process that started this one ended, or nothing listens at the engine's address any more."""
    if os.getppid() != parent:
        return True
    if engine is None:
        return False
    try:
        socket.create_connection(engine, timeout=5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def run(backend: Backend, name: str, version: str) -> None:
    """See `base.serve`."""
    stop = threading.Event()

    def on_signal(number: int, frame: types.FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    parent = os.getppid()
    address = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    host, _, engine_port = address.rpartition(":")
    engine = (host, int(engine_port)) if engine_port.isdigit() else None
    server, port = start(backend, name, version)
    print(port, flush=True)
    while not stop.wait(WATCH_INTERVAL) and not engine_is_gone(parent, engine):
        pass
    server.stop(GRACE).wait(GRACE)
    # Worker threads may hang in a call to a dead server; the engine waits only 5 s for this process.
    os._exit(0)
