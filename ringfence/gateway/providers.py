"""The real providers: OpenAI's, Anthropic's and Bedrock's APIs over HTTPS, with the control side's own key or credentials.

A key is read when a call is made, so that it can be rotated, and leaves the process in that call's header only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ringfence.errors import InputError, Problem
from ringfence.gateway.prices import Price
from ringfence.gateway.request import ModelCall
from ringfence.gateway.upstream import NotSent, Reply, UpstreamFailed

# The secret interface: gives the key at the time of the call. Raises or returns "" when there is none.
Secret = Callable[[], str]

# Reading has no limit of its own: the invocation's deadline cuts it.
_TIMEOUT = httpx.Timeout(connect=10, read=None, write=60, pool=10)
_CONNECTIONS = httpx.Limits(max_connections=500, max_keepalive_connections=50)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
ANTHROPIC_VERSION = "2023-06-01"


def _base(where: str, url: str) -> str:
    """A checked base address. Plain HTTP only to this machine: the key travels along. Raises InputError."""
    parts = urlsplit(url)
    loopback = parts.hostname == "localhost"
    with suppress(ValueError):
        loopback = loopback or ip_address(parts.hostname or "").is_loopback
    if not parts.hostname or parts.username or parts.query or not (parts.scheme == "https" or loopback):
        raise InputError([Problem(where, "base_url", f"is {url!r}", "give an https address without user or query")])
    return url.rstrip("/")


class _HttpUpstream:
    """What the three have in common. proxy: of the control side's way out, if it has one."""

    name = ""
    price_list = ""
    prices: Mapping[str, Price] = {}

    def __init__(self, base_url: str, proxy: str | None = None):
        self._base_url = _base(self.name, base_url)
        self._proxy = proxy
        self._client: httpx.AsyncClient | None = None

    def most_tokens(self, call: ModelCall) -> tuple[int, int]:
        """As the request says: providers keep its limits."""
        return call.input_tokens, call.output_tokens

    def forget(self, invocation_id: str) -> None:
        """Keeps nothing per invocation."""

    def secrets(self) -> tuple[str, ...]:
        """See `Upstream`."""
        raise NotImplementedError

    async def prepared(self, call: ModelCall, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Address and headers of a call, key included."""
        raise NotImplementedError

    @asynccontextmanager
    async def send(self, call: ModelCall, headers: Mapping[str, str], invocation_id: str) -> AsyncIterator[Reply]:
        """See `Upstream`."""
        url, own = await self.prepared(call, headers)
        # No environment: neither a netrc's credentials nor a proxy that nobody chose for this.
        self._client = self._client or httpx.AsyncClient(
            timeout=_TIMEOUT, limits=_CONNECTIONS, trust_env=False, proxy=self._proxy, follow_redirects=False
        )
        own = {"content-type": "application/json", "accept-encoding": "identity"} | own
        try:
            async with self._client.stream("POST", url, content=call.content, headers=own) as response:
                yield Reply(response.status_code, dict(response.headers), _content(response))
        except _NOT_SENT as error:
            raise NotSent(type(error).__name__) from None
        except httpx.HTTPError as error:
            raise UpstreamFailed(type(error).__name__) from None

    async def close(self) -> None:
        """See `Upstream`."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


async def _content(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        raise UpstreamFailed(type(error).__name__) from None


def _key(secret: Secret, name: str) -> str:
    key = secret()
    if not key:
        raise NotSent(f"no key for {name} on the control side")
    return key


class OpenAI(_HttpUpstream):
    """OpenAI's Chat Completions. models: prefixes of names that go here."""

    name = price_list = "openai"

    def __init__(self, key: Secret, base_url: str = "https://api.openai.com", proxy: str | None = None):
        super().__init__(base_url, proxy)
        self._secret = key

    def serves(self, api: str, model: str) -> bool:
        """Everything in OpenAI's shape but the scripted model."""
        return api == "openai" and model != "scripted"

    def secrets(self) -> tuple[str, ...]:
        """See `Upstream`."""
        return tuple(filter(None, (self._secret(),)))

    async def prepared(self, call: ModelCall, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """See `_HttpUpstream`."""
        return f"{self._base_url}/v1/chat/completions", {"authorization": f"Bearer {_key(self._secret, self.name)}"}


class Anthropic(_HttpUpstream):
    """Anthropic's Messages."""

    name = price_list = "anthropic"

    def __init__(self, key: Secret, base_url: str = "https://api.anthropic.com", proxy: str | None = None):
        super().__init__(base_url, proxy)
        self._secret = key

    def serves(self, api: str, model: str) -> bool:
        """Everything in Anthropic's shape."""
        return api == "anthropic"

    def secrets(self) -> tuple[str, ...]:
        """See `Upstream`."""
        return tuple(filter(None, (self._secret(),)))

    async def prepared(self, call: ModelCall, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """See `_HttpUpstream`."""
        version = headers.get("anthropic-version", ANTHROPIC_VERSION)
        own = {"x-api-key": _key(self._secret, self.name), "anthropic-version": version}
        return f"{self._base_url}/v1/messages", own


_ACTIONS = {
    ("bedrock-converse", False): "converse",
    ("bedrock-converse", True): "converse-stream",
    ("bedrock-invoke", False): "invoke",
    ("bedrock-invoke", True): "invoke-with-response-stream",
}


class Bedrock(_HttpUpstream):
    """Bedrock's runtime, signed with the control side's credentials. credentials: botocore's, asked for at each call."""

    name, price_list = "aws.bedrock", "aws"

    def __init__(
        self,
        credentials: Callable[[], Credentials | None],
        region: str,
        base_url: str = "",
        proxy: str | None = None,
    ):
        super().__init__(base_url or f"https://bedrock-runtime.{region}.amazonaws.com", proxy)
        # At DEBUG it writes every signed request to the log, session token included.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)
        self._credentials = credentials
        self._region = region

    def serves(self, api: str, model: str) -> bool:
        """Everything in Bedrock's shapes."""
        return api.startswith("bedrock-")

    def secrets(self) -> tuple[str, ...]:
        """See `Upstream`."""
        frozen = self._frozen()
        return () if frozen is None else tuple(filter(None, (frozen.secret_key, frozen.token)))

    def _frozen(self) -> Credentials | None:
        credentials = self._credentials()
        return None if credentials is None else credentials.get_frozen_credentials()

    async def prepared(self, call: ModelCall, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """See `_HttpUpstream`."""
        # Refreshing credentials blocks.
        frozen = await asyncio.to_thread(self._frozen)
        if frozen is None:
            raise NotSent("no AWS credentials on the control side")
        action = _ACTIONS[call.api, call.streaming]
        url = f"{self._base_url}/model/{quote(call.model, safe='')}/{action}"
        accept = "application/vnd.amazon.eventstream" if call.streaming else "application/json"
        request = AWSRequest("POST", url, {"content-type": "application/json", "accept": accept}, call.content)
        SigV4Auth(frozen, "bedrock", self._region).add_auth(request)
        return url, dict(request.headers.items())
