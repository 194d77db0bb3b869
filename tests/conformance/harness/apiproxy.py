"""An API server's front that hands port-forwards to servers of this machine, and the proxy through which those servers call others by name.

Everything but a port-forward passes through to the real front untouched: with it, the sandbox's Kubernetes runs pods whose
Vault is a real server. TLS into a pod passes from end to end.
"""

import base64
import contextlib
import hashlib
import json
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

Address = tuple[str, int]
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def read_head(stream: socket.socket) -> bytes:
    """Up to and with the empty line; empty when the peer has nothing more to ask."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def header(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ssl.SSLError, ValueError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def both(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()


class Listener:
    """Accepts on a free loopback port; a thread per connection."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.guarded, args=(near,), daemon=True).start()

    def guarded(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, ValueError), near:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(near)

    def serve(self, near: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.socket.close()


class NameProxy(Listener):
    """An HTTP proxy for CONNECT: `lead` says where a name of the cluster answers on this machine."""

    def __init__(self, lead: Callable[[str], Address | None]):
        self.lead = lead
        super().__init__()

    def serve(self, near: socket.socket) -> None:
        asked = read_head(near).decode("latin-1").split()
        address = self.lead(asked[1]) if len(asked) > 1 and asked[0] == "CONNECT" else None
        if address is None:
            near.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(address, timeout=30) as far:
            far.settimeout(None)
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            both(near, far)


class ClockBridge:
    """The simulated clock runs ahead of the one that a real server checks tokens by: their times are told in its own.

    A token goes out with its times moved, and comes back as it was minted; its length stays the same.
    """

    def __init__(self):
        self.minted: dict[bytes, bytes] = {}

    def outward(self, answer: bytes) -> bytes:
        found = re.search(rb'"token":\s*"([\w-]+)\.([\w-]+)\.([\w-]+)"', answer)
        if found is None:
            return answer
        head, claims, signature = found.groups()
        told = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
        behind = int(time.time()) - 5 - told["iat"]
        moved = claims_text(claims)
        for name in ("iat", "nbf", "exp"):
            moved = moved.replace(f'"{name}":{told[name]}', f'"{name}":{told[name] + behind}')
        shown = b".".join([head, base64.urlsafe_b64encode(moved.encode()).rstrip(b"="), signature])
        self.minted[shown] = b".".join([head, claims, signature])
        return answer.replace(self.minted[shown], shown)

    def inward(self, request: bytes) -> bytes:
        for shown, minted in list(self.minted.items()):
            request = request.replace(shown, minted)
        return request


def claims_text(claims: bytes) -> str:
    return base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)).decode()


class ApiFront(Listener):
    """The front. `upstream` gives the real one's address and the context to trust it with; `pod` where a pod's server is."""

    def __init__(
        self,
        certificate: str,
        key: str,
        upstream: Callable[[], tuple[Address, ssl.SSLContext]],
        pod: Callable[[str], Address | None],
    ):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.upstream, self.pod = upstream, pod
        self.bridge = ClockBridge()
        # While set, not a byte of a pod's answer goes out: a reply that is lost on its way.
        self.mute = threading.Event()
        self.streams: set[socket.socket] = set()
        # So many seconds later every piece of a pod's answer goes out.
        self.lag = 0.0
        super().__init__()

    def serve(self, near: socket.socket) -> None:
        with self.context.wrap_socket(near, server_side=True) as secured:
            while head := read_head(secured):
                path = head.split(b" ", 2)[1].decode()
                if "/portforward" in path:
                    self.forward(secured, head, path.split("/pods/")[1].split("/")[0])
                    return
                if not self.relay(secured, head):
                    return

    def relay(self, near: ssl.SSLSocket, head: bytes) -> bool:
        """One request of its own connection: the answer ends where the connection does."""
        length = int(header(head, "content-length") or 0)
        body = b""
        while len(body) < length:
            body += near.recv(length - len(body))
        first, _, rest = head.partition(b"\r\n")
        address, trust = self.upstream()
        asked = self.bridge.inward(first + b"\r\nConnection: close\r\n" + rest + body)
        with socket.create_connection(address) as plain, trust.wrap_socket(plain, server_hostname=address[0]) as far:
            far.sendall(asked)
            minted = re.search(rb"/serviceaccounts/[^/ ]+/token[? ]", first) is not None
            answer = b""
            while data := far.recv(65536):
                if minted:
                    answer += data
                else:
                    near.sendall(data)
            near.sendall(self.bridge.outward(answer))
        return False

    def forward(self, near: ssl.SSLSocket, head: bytes, pod: str) -> None:
        accept = base64.b64encode(hashlib.sha1(header(head, "sec-websocket-key").encode() + WEBSOCKET).digest()).decode()
        near.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        port = struct.pack("<H", 8200)
        send(near, b"\x00" + port)
        send(near, b"\x01" + port)
        address = self.pod(pod)
        try:
            far = socket.create_connection(address or ("127.0.0.1", 1), timeout=10)
        except OSError as refused:
            send(near, b"\x01" + f"error forwarding port 8200 to pod {pod}: {refused}".encode())
            send(near, b"", 8)
            return
        with far:
            far.settimeout(None)
            self.streams.add(far)
            with contextlib.suppress(OSError, ssl.SSLError):
                self.exchange(near, far)
            self.streams.discard(far)
            with contextlib.suppress(OSError, ssl.SSLError):
                send(near, b"", 8)

    def exchange(self, near: ssl.SSLSocket, far: socket.socket) -> None:
        """Both directions in one thread: two must not use one TLS stream at once."""
        while True:
            ready = [near] if near.pending() else select.select([near, far], [], [])[0]
            if near in ready:
                frame = receive(near)
                if frame is None:
                    return
                if frame[:1] == b"\x00":
                    far.sendall(frame[1:])
            if far in ready:
                data = far.recv(16384)
                if data and self.lag:
                    self.mute.wait(self.lag)
                if not data or self.mute.is_set():
                    return
                send(near, b"\x00" + data)

    def cut(self) -> None:
        """Breaks every stream into a pod."""
        for stream in list(self.streams):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


def send(stream: socket.socket, payload: bytes, operation: int = 2) -> None:
    """One unmasked frame; 2 is binary, 8 closes."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
    stream.sendall(bytes([0x80 | operation]) + length + payload)


def exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise OSError("the peer left")
        data += more
    return data


def receive(stream: socket.socket) -> bytes | None:
    """The payload of the next frame with data; None when the peer closes."""
    while True:
        first, second = exactly(stream, 2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", exactly(stream, 2))
        elif size == 127:
            (size,) = struct.unpack(">Q", exactly(stream, 8))
        mask = exactly(stream, 4) if second & 0x80 else b"\x00" * 4
        masked = exactly(stream, size)
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
        if first & 0x0F == 8:
            return None
        if first & 0x0F in (0, 1, 2):
            return payload
