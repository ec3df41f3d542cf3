"""web-fetch: reads public pages over HTTPS through the tool's own listener of the egress proxy."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from agent_runtime.errors import ToolError
from agent_runtime.policy import url_host
from agent_runtime.tool import Tool
from agent_runtime.tools.surroundings import Surroundings

MAX_PAGE_BYTES = 1 << 20
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/xhtml+xml")
_PARAMETERS = {
    "type": "object",
    "properties": {"url": {"type": "string", "description": "https://host/path, of one of the tool's hosts"}},
    "required": ["url"],
    "additionalProperties": False,
}


def tool(surroundings: Surroundings, context: ssl.SSLContext | None = None) -> Tool:
    """The tool for one task. context: TLS settings, by default the system's own authorities."""
    declaration = surroundings.declaration

    def run(arguments: Mapping[str, Any]) -> str:
        url = arguments.get("url")
        host = url_host(url) if isinstance(url, str) else None
        if host is None:
            raise ToolError("url must be a plain https URL")
        if surroundings.proxy_host is None or declaration.port is None:
            raise ToolError("the tool has no way out in this task")
        return _fetched(url, host, (surroundings.proxy_host, declaration.port), declaration.timeout_seconds, context)

    hosts = ", ".join(declaration.domains) or "none"
    return Tool(declaration.name, f"{declaration.description or 'Reads pages.'} Hosts: {hosts}.", _PARAMETERS, run)


def _fetched(url: str, host: str, proxy: tuple[str, int], timeout: float, context: ssl.SSLContext | None) -> str:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Tunnelled(host, proxy, timeout, context or ssl.create_default_context())
    try:
        connection.request("GET", path, headers={"User-Agent": "ringfence", "Accept": "text/*, application/json;q=0.9"})
        answer = connection.getresponse()
        kind = answer.headers.get_content_type()
        if 300 <= answer.status < 400:
            # Not followed: the new address must pass the gate like any other.
            target = urljoin(url, answer.headers.get("Location", ""))
            raise ToolError(f"the page moved to {target[:500]}")
        if answer.status >= 400:
            raise ToolError(f"the host answered {answer.status}")
        if not kind.startswith(_TEXT_TYPES):
            raise ToolError(f"the page is {kind[:100]}, not text")
        data = answer.read(MAX_PAGE_BYTES)
    except _Refused as error:
        raise ToolError(f"the egress proxy refused {host}: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        raise ToolError(f"{host} could not be reached: {type(error).__name__}") from None
    finally:
        connection.close()
    try:
        text = data.decode(answer.headers.get_content_charset() or "utf-8", errors="replace")
    except LookupError:
        text = data.decode(errors="replace")
    return _readable(text) if "html" in kind else text


class _Refused(OSError):
    """The proxy's answer to CONNECT, when it isn't yes."""


class _Tunnelled(http.client.HTTPSConnection):
    """HTTPS to a host through a proxy. http.client's own tunnel says HTTP/1.0 before Python 3.12, which the proxy refuses."""

    def __init__(self, host: str, proxy: tuple[str, int], timeout: float, context: ssl.SSLContext):
        super().__init__(host, 443, timeout=timeout)
        self._proxy = proxy
        self._settings = context

    def connect(self) -> None:
        """Raises _Refused, OSError or HTTPException."""
        plain = socket.create_connection(self._proxy, self.timeout)
        try:
            plain.sendall(f"CONNECT {self.host}:443 HTTP/1.1\r\nHost: {self.host}:443\r\n\r\n".encode("ascii"))
            with http.client.HTTPResponse(plain, method="CONNECT") as answer:
                answer.begin()
                if answer.status != 200:
                    raise _Refused(f"{answer.status} {answer.reason}")
            self.sock = self._settings.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class _Text(HTMLParser):
    """Keeps what a reader would see; scripts, styles and comments are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style", "template", "noscript")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style", "template", "noscript") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.parts.append(" ".join(data.split()))


def _readable(page: str) -> str:
    parser = _Text()
    parser.feed(page)
    parser.close()
    return "\n".join(parser.parts)
