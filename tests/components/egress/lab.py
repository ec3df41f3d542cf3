"""A small internet for the proxy's tests: an own network namespace with a DNS server, TLS servers and the real Envoy.

Run as a process: `python lab.py <envoy binary> <work folder>`. It unshares its network (as any user, through a user
namespace), puts addresses that are public elsewhere on its loopback, and obeys one JSON command per line on stdin,
answering one JSON line each. Nothing leaves the namespace, and it ends with this process.
"""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFADDR, SIOCSIFFLAGS = 0x8916, 0x8914
IFF_UP_RUNNING = 0x41
CLIENT = "10.42.0.9"
DNS_ADDRESS = ("169.254.169.253", 53)  # where the VPC resolver is
# Servers stand on public addresses, and on every kind of address that must never be reached.
PUBLIC = ("8.8.4.4", "9.9.9.10")
FORBIDDEN = ("10.42.200.5", "100.64.0.7", "127.0.0.1", "169.254.169.254", "172.16.9.9", "192.168.1.1", "198.18.0.1")
TTL_AND_LENGTH = struct.pack(">IH", 1, 4)
SECONDS = 10.0
AWS_NAMES = ("*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com")


def enter_namespace(inside: int = 0) -> None:
    """A network namespace of its own; without privilege, inside a user namespace of its own, as the user `inside`."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "this kernel allows no network namespace (user namespaces are off)")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{inside} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{inside} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
        wanted = [a for a in (*PUBLIC, *FORBIDDEN, DNS_ADDRESS[0], CLIENT) if not a.startswith("127.")]
        for index, address in enumerate(wanted):
            alias = f"lo:{index}".encode()
            packed = struct.pack("16sHH4s8x", alias, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, SIOCSIFADDR, packed)


def make_certificates(folder: Path, names: list[str]) -> None:
    """`ca.pem`, and `server.pem` with its key for `names`."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab CA")])

    def certificate(subject: x509.Name, public: Any, extensions: list[tuple[Any, bool]]) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=ca_name,
            subject_name=subject,
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=1),
            not_valid_after=now + datetime.timedelta(days=2),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256())

    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    ca = certificate(
        ca_name,
        ca_key.public_key(),
        [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
        ],
    )
    leaf = certificate(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")]),
        key.public_key(),
        [
            (x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
        ],
    )
    pem = serialization.Encoding.PEM
    folder.joinpath("ca.pem").write_bytes(ca.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.joinpath("server.pem").write_bytes(private + leaf.public_bytes(pem))


class Dns:
    """Answers A queries. A name holds a list of answers: the n-th query gets the n-th, the last one repeats."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(DNS_ADDRESS)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(4096)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += query[at] + 1
            question, name = query[12 : at + 5], ".".join(labels)
            self.asked.append(name)
            plan = self.answers.get(name, [])
            addresses = (plan.pop(0) if len(plan) > 1 else plan[0]) if plan else []
            if query[at + 1 : at + 3] != b"\x00\x01":  # not an A query
                addresses = []
            flags = 0x8180 if name in self.answers else 0x8183
            head = query[:2] + struct.pack(">HHHHH", flags, 1, len(addresses), 0, 0)
            body = b"".join(b"\xc0\x0c\x00\x01\x00\x01" + TTL_AND_LENGTH + socket.inet_aton(a) for a in addresses)
            self._socket.sendto(head + question + body, peer)


class Servers:
    """On each address a TLS server at 443 that answers with its own address, and plain ones at 80 and 22."""

    def __init__(self, folder: Path) -> None:
        self.reached: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(folder / "server.pem")
        for address in (*PUBLIC, *FORBIDDEN):
            for port in (443, 80, 22):
                listener = socket.create_server((address, port))
                threading.Thread(target=self._accept, args=(listener, address, port), daemon=True).start()

    def _accept(self, listener: socket.socket, address: str, port: int) -> None:
        while True:
            connection, _ = listener.accept()
            self.reached.append(f"{address}:{port}")
            threading.Thread(target=self._answer, args=(connection, address, port), daemon=True).start()

    def _answer(self, connection: socket.socket, address: str, port: int) -> None:
        connection.settimeout(SECONDS)
        try:
            with self._context.wrap_socket(connection, server_side=True) if port == 443 else connection as stream:
                sent = stream.recv(65536)
                stream.sendall(f"hello from {address}, {len(sent)} bytes".encode())
        except OSError:
            connection.close()


class Lab:
    """Holds the servers and one Envoy, and carries out commands."""

    def __init__(self, binary: str, folder: Path):
        make_certificates(folder, ["*.example.com", "*.wild.example.com", "*.example.org", *AWS_NAMES])
        self._binary, self._folder = binary, folder
        self._dns, self._servers = Dns(), Servers(folder)
        self._envoy: subprocess.Popen | None = None

    def start(self, config: str, ports: list[int]) -> dict:
        """Starts Envoy on a configuration file and waits until its listeners accept."""
        self.stop()
        log = (self._folder / "envoy.log").open("wb")
        command = [
            self._binary,
            "-c",
            config,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "20",
        ]
        self._envoy = subprocess.Popen(
            command, stdout=(self._folder / "stdout.log").open("wb"), stderr=log, preexec_fn=_die_with_parent
        )
        deadline = time.monotonic() + 120
        for port in ports:
            while time.monotonic() < deadline and self._envoy.poll() is None:
                try:
                    socket.create_connection((CLIENT, port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                return {"error": (self._folder / "envoy.log").read_text(errors="replace")[-3000:]}
        return {"ok": True}

    def stop(self) -> dict:
        """Ends Envoy."""
        if self._envoy:
            self._envoy.kill()
            self._envoy.wait()
        return {"ok": True}

    def dns(self, answers: dict[str, list[list[str]]]) -> dict:
        """Adds or replaces names."""
        self._dns.answers.update(answers)
        return {"ok": True}

    def seen(self, reset: bool = True) -> dict:
        """Which servers took a connection and which names were asked for since the last call."""
        result = {"reached": list(self._servers.reached), "asked": list(self._dns.asked)}
        if reset:
            self._servers.reached.clear()
            self._dns.asked.clear()
        return result

    def _client_context(self, sni: str | None, newest_tls: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._folder / "ca.pem"))
        context.check_hostname = sni is not None
        if newest_tls == "TLSv1_1":  # OpenSSL no longer offers it on its own account
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.set_ciphers("ALL:@SECLEVEL=0")
        context.maximum_version = ssl.TLSVersion[newest_tls]
        return context

    def probe(
        self,
        port: int,
        request: str,
        sni: str | None = None,
        newest_tls: str = "TLSv1_3",
        payload: str = "",
        silent: bool = False,
    ) -> dict:
        """Sends `request` to the proxy and, when it agrees, a TLS ClientHello, or `payload` as it is, or nothing.

        Returns status (HTTP code, 0 when closed without one), and answer: what the far end said, or error.
        """
        try:
            connection = socket.create_connection((CLIENT, port), timeout=SECONDS, source_address=(CLIENT, 0))
            connection.sendall(request.encode("latin-1"))
            head = b""
            while b"\r\n\r\n" not in head and (block := connection.recv(65536)):
                head += block
            status = int(head.split()[1]) if head.startswith(b"HTTP/") else 0
        except OSError as error:
            return {"status": 0, "answer": "", "error": type(error).__name__}
        if status != 200:
            connection.close()
            return {"status": status, "answer": "", "error": "refused"}
        if silent:
            connection.close()
            return {"status": status, "answer": "", "error": "silent"}
        try:
            if not payload:
                connection = self._client_context(sni, newest_tls).wrap_socket(connection, server_hostname=sni)
            connection.sendall(payload.encode("latin-1") or b"GET / HTTP/1.1\r\n\r\n")
            answer = connection.recv(65536).decode()
            return {"status": status, "answer": answer, "error": "" if answer else "closed"}
        except (OSError, ssl.SSLError) as error:
            return {"status": status, "answer": "", "error": type(error).__name__}
        finally:
            connection.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Serves commands until stdin closes."""
    _die_with_parent()
    enter_namespace()
    lab = Lab(sys.argv[1], Path(sys.argv[2]))
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(lab, command.pop("do"))(**command)), flush=True)
    lab.stop()


if __name__ == "__main__":
    main()
