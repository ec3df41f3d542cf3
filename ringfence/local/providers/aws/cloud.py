"""Calls to the embedded AWS endpoint: loopback only, cached clients, headers that make interrupted creations repeatable."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from ringfence.local.providers.base import ProviderError

CREATE_HEADER = "X-Ringfence-Create"
DELETE_HEADER = "X-Ringfence-Delete"
_READING = ("Describe", "Get", "List", "Head")
# The user's own AWS settings must not reach the embedded endpoint, nor redirect the calls meant for it.
_USER_SETTINGS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT")


def refuse_remote(endpoint: str) -> str:
    """`endpoint` when it is http on a loopback address; raises ProviderError otherwise."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if parts.scheme not in ("http", "https") or not loopback:
        raise ProviderError(
            f"AWS_ENDPOINT_URL is {endpoint or 'not set'!r}: the embedded aws provider talks to a loopback address only. "
            "Start the embedded AWS with `make up`, or use the official aws plugin for an account."
        )
    return endpoint


@dataclass
class _Call(threading.local):
    """What the calling thread is doing, for the headers."""

    header: str = ""
    value: str = ""


class Cloud:
    """boto3 clients of one region at the embedded endpoint. Safe to use from several threads."""

    def __init__(self, endpoint: str, region: str):
        self.endpoint = refuse_remote(endpoint)
        self.region = region
        self._clients: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._call = _Call()

    @cached_property
    def _core(self) -> Any:
        """A botocore session that reads nothing of the user's own."""
        import botocore.session

        for name in (*_USER_SETTINGS, *(key for key in os.environ if key.startswith("AWS_ENDPOINT_URL_"))):
            os.environ.pop(name, None)
        core = botocore.session.Session()
        core.set_config_variable("config_file", os.devnull)
        core.set_config_variable("credentials_file", os.devnull)
        return core

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.Session(
            aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID", "embedded"),
            aws_secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY", "embedded"),
            region_name=self.region,
            botocore_session=self._core,
        )

    def client(self, service: str) -> Any:
        """The boto3 client of `service`, made once."""
        client = self._clients.get(service)
        if client is not None:
            return client
        from botocore.config import Config

        with self._lock:
            if service not in self._clients:
                config = Config(
                    max_pool_connections=64,
                    retries={"mode": "standard", "total_max_attempts": 2},
                    connect_timeout=5,
                    read_timeout=60,
                    proxies={},
                    inject_host_prefix=False,
                    s3={"addressing_style": "path"},
                    user_agent_extra="ringfence-embedded",
                )
                made = self._session.client(service, endpoint_url=self.endpoint, config=config)
                made.meta.events.register("before-call", self._mark)
                self._clients[service] = made
        return self._clients[service]

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """One API call, by boto3's method name, without the response's metadata. Raises botocore's ClientError."""
        response = getattr(self.client(service), operation)(**parameters)
        response.pop("ResponseMetadata", None)
        return response

    def input_shape(self, service: str, operation: str) -> Any:
        """botocore's model of the request of `operation` (boto3's method name). Needs no client, which takes longer to make."""
        with self._lock:
            if service not in self._models:
                from botocore import xform_name

                model = self._core.get_service_model(service)
                self._models[service] = (model, {xform_name(name): name for name in model.operation_names})
        model, names = self._models[service]
        return model.operation_model(names[operation]).input_shape

    def _mark(self, model: Any, params: dict[str, Any], **_: Any) -> None:
        call = self._call
        if not call.header or model.name.startswith(_READING):
            return
        params["headers"][call.header] = call.value

    @contextmanager
    def _marking(self, header: str, value: str) -> Iterator[None]:
        self._call.header, self._call.value = header, value
        try:
            yield
        finally:
            self._call.header = ""

    def creating(self, urn: str, inputs: dict[str, Any], known_ids: Iterable[str]) -> Any:
        """While open, this thread's calls say which creation they belong to, so that a repeated one makes nothing twice.

        The header tells the resource, its inputs and the ids that the engine already knows for it: a creation that the
        engine has forgotten looks the same when it is tried again, a deliberate replacement does not.
        """
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        return self._marking(CREATE_HEADER, f"{urn};{digest};{','.join(sorted(known_ids))}")

    def creation_digest(self) -> str:
        """A token for APIs that want one of their own: the same for a repeated creation, another for every other."""
        return hashlib.sha256(self._call.value.encode()).hexdigest()[:32]

    def deleting(self, urn: str) -> Any:
        """While open, this thread's calls say which resource they delete, so that its remembered creations are forgotten."""
        return self._marking(DELETE_HEADER, urn)

    @cached_property
    def account(self) -> str:
        """The embedded account's 12 digits."""
        return self.call("sts", "get_caller_identity")["Account"]

    @cached_property
    def partition(self) -> str:
        """`aws`, `aws-cn` or `aws-us-gov`, by region."""
        return self._session.get_partition_for_region(self.region)

    @property
    def facts(self) -> dict[str, str]:
        """What names and ARNs are made of."""
        return {"account": self.account, "region": self.region, "partition": self.partition}
