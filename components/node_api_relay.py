"""Carries a sandbox node's own calls to AWS through the egress proxy. Runs on the node; standard library only.

Sandbox subnets have no way out, and the add-ons that need an AWS API there (VPC CNI: EC2; Pod Identity agent: EKS Auth)
know no proxy settings (github.com/aws/containers-roadmap/issues/2480). /etc/hosts points those names at loopback
addresses, which host-network pods inherit and sandbox pods can't reach; this relay asks the proxy for a tunnel to the
name that belongs to the address. It sees TLS records only. AL2023's system Python is 3.9.

    node_api_relay.py PROXY_HOST:PORT 127.64.0.1=ec2.us-east-1.amazonaws.com ... [--port 443]
"""

import asyncio
import sys

CONNECT_SECONDS = 10
HEAD_LIMIT = 8192


async def pump(reader, writer):
    """Copies until the sender ends, then says so to the receiver."""
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def tunnel(proxy_host, proxy_port, host):
    """A connection to the proxy in which `host`:443 answers. Raises ConnectionError when the proxy refuses."""
    reader, writer = await asyncio.open_connection(proxy_host, proxy_port, limit=HEAD_LIMIT)
    writer.write(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    answer = head.split(b"\r\n", 1)[0].decode("latin-1")
    if answer.split(" ")[1:2] != ["200"]:
        writer.close()
        raise ConnectionError(f"the proxy answered {answer!r}")
    return reader, writer


def serve(proxy_host, proxy_port, host):
    """The handler of one name's connections."""

    async def handle(reader, writer):
        try:
            opened = await asyncio.wait_for(tunnel(proxy_host, proxy_port, host), CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:  # noqa: UP041
            print(f"no tunnel to {host}: {error or type(error).__name__}", file=sys.stderr, flush=True)
            writer.close()
            return
        far_reader, far_writer = opened
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    return handle


async def main(arguments):
    port = 443
    if len(arguments) > 2 and arguments[-2] == "--port":
        port = int(arguments[-1])
        arguments = arguments[:-2]
    proxy_host, _, proxy_port = arguments[0].rpartition(":")
    servers = []
    for pair in arguments[1:]:
        address, _, host = pair.partition("=")
        servers.append(await asyncio.start_server(serve(proxy_host, int(proxy_port), host), address, port))
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
