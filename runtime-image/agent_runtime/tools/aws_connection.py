"""Connections to AWS through the egress proxy. Imported when a client is made: botocore takes long to load in a sandbox."""

from __future__ import annotations

import http.client
from typing import Any

from botocore.awsrequest import AWSHTTPSConnection, AWSHTTPSConnectionPool


class _Connection(AWSHTTPSConnection):
    """urllib3's own tunnel says HTTP/1.0 without a Host before Python 3.12, which the proxy refuses."""

    def _tunnel(self) -> None:
        host = f"{self._tunnel_host}:{self._tunnel_port}"
        self.sock.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
        with http.client.HTTPResponse(self.sock, method="CONNECT") as answer:
            answer.begin()
            status = answer.status
        if status != 200:
            self.close()
            # The words by which urllib3 and botocore tell a proxy's refusal.
            raise OSError(f"Tunnel connection failed: {status}")


class _Pool(AWSHTTPSConnectionPool):
    ConnectionCls = _Connection


def tunnel(client: Any) -> None:
    """Makes a new client of botocore ask the proxy in HTTP/1.1. Raises AttributeError when botocore keeps its connections
    in another place, so that an update can't lose it unseen."""
    # botocore takes no connection classes (`URLLib3Session.__init__`).
    pools = client._endpoint.http_session._pool_classes_by_scheme
    pools["https"] = _Pool
