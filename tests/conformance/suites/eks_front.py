"""The EKS front of the suites: only a token of IAM opens the administrator's connection to the server behind, and streams pass whole.

It holds nothing of the product: it shows that what the suite `deploy` and the run on kind go through is as closed as EKS is.
"""

import pathlib
import socket
import ssl

from harness import eks_token
from harness.apiproxy import Listener, read_head
from harness.eks_front import EksFront, Upstream
from harness.openbao import openssl
from harness.report import Report
from harness.vault_world import authority

GOOD = f"{eks_token.PREFIX}good"


class Asking(Listener):
    """Says whose certificate the peer shows and which token it brings; after an upgrade it sends everything back."""

    def __init__(self, context: ssl.SSLContext):
        self.context = context
        super().__init__()

    def serve(self, near: socket.socket) -> None:
        with self.context.wrap_socket(near, server_side=True) as secured:
            head = read_head(secured).decode("latin-1").lower()
            if "upgrade: echo" in head:
                secured.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
                while data := secured.recv(65536):
                    secured.sendall(data)
                return
            shown = "administrator" if secured.getpeercert() else "anybody"
            token = "with a token" if "authorization:" in head else "without a token"
            body = f"{shown} {token}".encode()
            secured.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def administrator(folder: pathlib.Path) -> tuple[str, str]:
    """A certificate that the server behind takes for its administrator's."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(folder, "req", *curve, "-keyout", "admin.key", "-out", "admin.csr", "-subj", "/O=system:masters/CN=admin")
    signed = ["-CA", "front-ca.pem", "-CAkey", "front-ca.key", "-CAcreateserial", "-days", "30"]
    openssl(folder, "x509", "-req", "-in", "admin.csr", "-out", "admin.pem", *signed)
    return str(folder / "admin.pem"), str(folder / "admin.key")


def judge(token: str) -> None:
    if token != GOOD:
        raise eks_token.Refused("it is not the good one")


def ask(front: EksFront, folder: pathlib.Path, *headers: str) -> str:
    """The whole answer to one request."""
    with dial(front, folder) as stream:
        lines = ["GET /api HTTP/1.1", "Host: cluster", "Connection: keep-alive", *headers]
        stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while data := stream.recv(65536):
            answer += data
    return answer.decode()


def dial(front: EksFront, folder: pathlib.Path) -> ssl.SSLSocket:
    trust = ssl.create_default_context(cafile=str(folder / "front-ca.pem"))
    plain = socket.create_connection(("127.0.0.1", front.port), timeout=30)
    return trust.wrap_socket(plain, server_hostname="127.0.0.1")


def upgraded(report: Report, front: EksFront, folder: pathlib.Path) -> None:
    """Both directions flow before either ends, as in a port-forward."""
    with dial(front, folder) as stream:
        lines = ["GET /x HTTP/1.1", "Upgrade: echo", "Connection: Upgrade", f"Authorization: Bearer {GOOD}"]
        stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        report.true("an upgrade passes", read_head(stream).startswith(b"HTTP/1.1 101"))
        for size in (1, 70_000):
            sent, heard = b"x" * size, b""
            stream.sendall(sent)
            while len(heard) < size and (data := stream.recv(65536)):
                heard += data
            report.check(f"{size} bytes come back while the stream is open", size, len(heard))


def run(report: Report, folder: pathlib.Path) -> None:
    authority(folder)
    certificate = (str(folder / "front.pem"), str(folder / "front.key"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(str(folder / "front-ca.pem"))
    context.verify_mode = ssl.CERT_OPTIONAL
    behind = Asking(context)
    upstream = Upstream(("127.0.0.1", behind.port), str(folder / "front-ca.pem"), administrator(folder))
    try:
        with EksFront(*certificate, upstream, judge) as front:
            bearer = lambda token: ask(front, folder, f"Authorization: Bearer {token}")  # noqa: E731 - one line each, below
            report.true("a token of IAM", bearer(GOOD).endswith("administrator without a token"), bearer(GOOD))
            report.true("a service account's token", bearer("ey.J.x").endswith("anybody with a token"), bearer("ey.J.x"))
            report.true("no token", ask(front, folder).endswith("anybody without a token"))
            report.true("a bad token", bearer(f"{eks_token.PREFIX}bad").startswith("HTTP/1.1 401 "))
            report.check("refusals are counted", {"it is not the good one": 1}, dict(front.refused))
            upgraded(report, front, folder)
    finally:
        behind.close()
