"""A small client of the Kubernetes REST API: kubeconfig, TLS, requests, discovery, and errors that read well.

The official Python client takes over a second to import, in every run of the engine; this one needs urllib3 and YAML.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import random
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
import yaml

from ringfence.local.providers.base import ProviderError

# Seconds for one request; the API server itself gives up after 60.
REQUEST_TIMEOUT = 60.0
# Tries of one request that met an overloaded or restarting server. Every request made here can be repeated safely.
ATTEMPTS = 5
RETRIED = frozenset({429, 502, 503, 504})
# A credential from a plugin is used until this many seconds before its end.
TOKEN_MARGIN = 30.0
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"


class ApiError(ProviderError):
    """The API server refused a request. code: HTTP status; reason: ``NotFound``, ``Invalid``, ``AlreadyExists``, …;
    fields: paths of the fields that it names as the cause."""

    def __init__(self, code: int, status: Mapping[str, Any], what: str):
        details = status.get("details") or {}
        causes = details.get("causes") or []
        self.code = code
        self.reason: str = status.get("reason") or HTTPStatus(code).phrase
        self.fields: tuple[str, ...] = tuple(cause["field"] for cause in causes if cause.get("field"))
        self.message: str = status.get("message") or "no message"
        super().__init__(f"{what}: refused by the API server ({code} {self.reason}): {self.message}")


class Unreachable(ProviderError):
    """No API server answered."""


def _read_kubeconfig(source: Any) -> tuple[dict[str, Any], Path]:
    """The parsed kubeconfig and the folder that its relative paths start from."""
    if isinstance(source, dict):
        return source, Path.cwd()
    text, where, folder = str(source), "the kubeconfig setting", Path.cwd()
    if "\n" not in text and not text.lstrip().startswith("{"):
        path = Path(text).expanduser()
        where, folder = str(path), path.absolute().parent
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ProviderError(
                f"kubeconfig {path}: {error.strerror}: start the control plane (`make up`) or set KUBECONFIG"
            ) from None
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Not the error's own text, which quotes the line: it may hold a key.
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else "?"
        raise ProviderError(f"{where} is not YAML: see line {line}") from None
    if not isinstance(config, dict):
        raise ProviderError(f"{where} is not a kubeconfig: expected keys clusters, contexts, users")
    return config, folder


def _named(config: Mapping[str, Any], section: str, key: str, name: str) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return entry.get(key) or {}
    known = ", ".join(str(entry.get("name")) for entry in config.get(section) or []) or "none"
    raise ProviderError(f"the kubeconfig has no {key} {name!r}; it has {known}")


@dataclass(frozen=True)
class Access:
    """How one cluster is reached, and as whom."""

    server: str
    context: ssl.SSLContext | None
    namespace: str
    user: Mapping[str, Any] = field(repr=False)
    folder: Path

    @classmethod
    def load(cls, source: Any, context: str = "") -> Access:
        """From a kubeconfig: a path, its text, or its parsed content. Raises ProviderError with the key that is wrong."""
        config, folder = _read_kubeconfig(source)
        name = context or config.get("current-context") or ""
        chosen = _named(config, "contexts", "context", name)
        cluster = _named(config, "clusters", "cluster", chosen.get("cluster", ""))
        user = _named(config, "users", "user", chosen["user"]) if chosen.get("user") else {}
        server = cluster.get("server")
        if not server:
            raise ProviderError(f"the kubeconfig's cluster {chosen.get('cluster')!r} has no server")
        tls = _tls(cluster, user, folder) if server.startswith("https") else None
        return cls(server.rstrip("/"), tls, chosen.get("namespace") or "default", user, folder)


def _material(section: Mapping[str, Any], key: str, folder: Path) -> str | None:
    """PEM text that a kubeconfig has inline (``<key>-data``, base64) or in a file (``<key>``)."""
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    if path := section.get(key):
        return (folder / Path(path).expanduser()).read_text(encoding="utf-8")
    return None


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    try:
        authority = _material(cluster, "certificate-authority", folder)
        certificate = _material(user, "client-certificate", folder)
        key = _material(user, "client-key", folder)
    except (OSError, ValueError) as error:
        raise ProviderError(f"a certificate of the kubeconfig can't be read: {error}") from None
    context = ssl.create_default_context(cadata=authority)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate and key:
        # OpenSSL takes the pair from files only: they exist for this moment, readable by this user alone.
        with tempfile.TemporaryDirectory() as scratch:
            pair = Path(scratch) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_text(certificate + "\n" + key, encoding="utf-8")
            context.load_cert_chain(pair)
    return context


class Bearer:
    """The Authorization header of a kubeconfig user: a token, a token file, or a credential plugin (``exec``)."""

    def __init__(self, access: Access):
        self._user = access.user
        self._folder = access.folder
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def header(self) -> dict[str, str]:
        """The header to send, empty for a user with a client certificate."""
        if token := self._user.get("token"):
            return {"Authorization": f"Bearer {token}"}
        if path := self._user.get("tokenFile"):
            return {"Authorization": f"Bearer {(self._folder / path).read_text(encoding='utf-8').strip()}"}
        if plugin := self._user.get("exec"):
            with self._lock:
                if time.time() > self._until - TOKEN_MARGIN:
                    self._token, self._until = self._run(plugin)
                return {"Authorization": f"Bearer {self._token}"}
        return {}

    @staticmethod
    def _run(plugin: Mapping[str, Any]) -> tuple[str, float]:
        """Runs a client-go credential plugin (client.authentication.k8s.io ExecCredential)."""
        command = [plugin.get("command", ""), *(plugin.get("args") or [])]
        environment = os.environ | {item["name"]: item["value"] for item in plugin.get("env") or []}
        request = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(request)
        try:
            # The command is the kubeconfig's own, as it is for kubectl.
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=REQUEST_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProviderError(f"the kubeconfig's credential plugin {command[0]!r} can't be run: {error}") from None
        if done.returncode:
            raise ProviderError(f"the kubeconfig's credential plugin {command[0]!r} failed: {done.stderr.strip()}")
        try:
            status = json.loads(done.stdout)["status"]
            token = status["token"]
        except (ValueError, KeyError, TypeError):
            raise ProviderError(f"the kubeconfig's credential plugin {command[0]!r} gave no token") from None
        return token, _timestamp(status.get("expirationTimestamp"))


def _timestamp(text: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time in UTC; without one, a credential is good for this process."""
    if not text:
        return float("inf")
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of a group and version, as discovery tells: where its objects are."""

    api_version: str
    name: str
    plural: str
    namespaced: bool

    def path(self, name: str, namespace: str) -> str:
        """URL path of one object."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        scope = f"/namespaces/{quote(namespace)}" if self.namespaced else ""
        return f"{root}{scope}/{self.plural}/{quote(name, safe='')}"


class Client:
    """Requests to one API server, from several threads; connections are kept open.

    attempts: tries of one request while the server is overloaded, restarting or not there.
    """

    def __init__(self, access: Access, attempts: int = ATTEMPTS):
        self.access = access
        self._attempts = attempts
        self._bearer = Bearer(access)
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=32, block=True, ssl_context=access.context, retries=False, timeout=REQUEST_TIMEOUT
        )
        self._kinds: dict[str, dict[str, Kind]] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        **query: str,
    ) -> dict[str, Any]:
        """One request, repeated while the server is overloaded or restarting.

        what: the object, for messages. Raises ApiError for a refusal, Unreachable when nothing answers.
        """
        url = f"{self.access.server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type} | self._bearer.header()
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                response = self._pool.request(method, url, body=data, headers=headers)
            except urllib3.exceptions.HTTPError as error:
                if last:
                    raise Unreachable(
                        f"{what}: no answer from {self.access.server}: {error}: is the control plane running "
                        "(`ringfence status`)?"
                    ) from None
                _pause(attempt)
                continue
            if response.status in RETRIED and not last:
                _pause(attempt, response.headers.get("Retry-After"))
                continue
            return _answer(response, what)
        raise AssertionError("the last attempt returns or raises")

    def kind(self, api_version: str, name: str) -> Kind | None:
        """The kind, or None when the server doesn't have it (now): a definition may arrive at any time."""
        found = self._kinds.get(api_version, {}).get(name)
        if found is not None:
            return found
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            listing = self.request("GET", root, f"API {api_version}")
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        kinds = {
            entry["kind"]: Kind(api_version, entry["kind"], entry["name"], entry["namespaced"])
            for entry in listing.get("resources") or []
            if "/" not in entry["name"]
        }
        with self._lock:
            self._kinds[api_version] = kinds
        return kinds.get(name)


def _pause(attempt: int, retry_after: str | None = None) -> None:
    """Waits before the next try: what the server asked for, else longer each time, spread so that threads don't meet."""
    asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    time.sleep(max(asked, 0.1 * 2**attempt * random.uniform(0.5, 1.0)))  # noqa: S311 (no secret)


def _answer(response: urllib3.BaseHTTPResponse, what: str) -> dict[str, Any]:
    try:
        content = json.loads(response.data)
    except ValueError:
        content = {"message": response.data[:200].decode(errors="replace")}
    if response.status >= 400:
        raise ApiError(response.status, content if isinstance(content, dict) else {}, what)
    return content
