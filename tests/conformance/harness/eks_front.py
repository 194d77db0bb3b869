"""The API server of an EKS cluster, as far as it differs from any other: TLS under the cluster's own authority, and bearer tokens of IAM.

What is behind it is a real API server (kind's) or the sandbox's; every byte but the `Authorization` header passes through as
it comes, so watches and upgrades (port-forward, exec) work. A token of IAM is checked (`eks_token`), its owner needs an
access entry with the administrator's policy, and the call goes on as the administrator of the server behind. Any other
credential goes on as it is: the server behind judges it.
"""

import asyncio
import collections
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable

from harness import eks_token

# A head longer than this is no request.
LIMIT = 1 << 20
Judge = Callable[[str], None]


class Upstream:
    """Where the server behind answers, and what makes a call its administrator's: a certificate, or a header."""

    def __init__(
        self,
        address: tuple[str, int],
        authority: str,
        certificate: tuple[str, str] | None = None,
        authorization: Callable[[], str] | None = None,
    ):
        self.host, self.port = address
        self.authorization = authorization
        self.anybody = ssl.create_default_context(cafile=authority)
        self.administrator = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            self.administrator.load_cert_chain(*certificate)


def refusal() -> bytes:
    """What an API server answers to a token that is none; it does not say why."""
    text = {"message": "Unauthorized", "reason": "Unauthorized", "status": "Failure", "code": 401}
    body = json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, **text}).encode()
    kind = b"Content-Type: application/json\r\nConnection: close\r\n"
    return b"HTTP/1.1 401 Unauthorized\r\n" + kind + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


class EksFront:
    """`with EksFront(certificate, key, upstream, judge) as front:` listens on a free loopback port. `judge` raises `eks_token.Refused`."""

    def __init__(self, certificate: str, key: str, upstream: Upstream, judge: Judge):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.upstream, self.judge = upstream, judge
        self.known: dict[str, float] = {}
        self.refused: collections.Counter[str] = collections.Counter()
        self.served = self.upgraded = 0
        # The loop itself holds tasks but weakly: one that waits for a peer that left in silence would be swept away.
        self.serving: set[asyncio.Task[None] | None] = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> "EksFront":
        self.thread.start()
        listening = asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context, limit=LIMIT)
        self.server = asyncio.run_coroutine_threadsafe(listening, self.loop).result(30)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=30)
        self.loop.close()

    async def end(self) -> None:
        self.server.close()
        # A connection that was being accepted becomes a task of its own meanwhile.
        while serving := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in serving:
                task.cancel()
            await asyncio.wait(serving, timeout=1)

    async def serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.serving.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self.one(near, back)
        except asyncio.CancelledError:
            pass  # the front ends
        finally:
            self.serving.discard(task)
            back.close()

    async def one(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One request on a connection of its own: the answer ends where the connection does."""
        head = (await near.readuntil(b"\r\n\r\n")).decode("latin-1")
        try:
            head, context = await self.loop.run_in_executor(None, self.passed_on, head)
        except eks_token.Refused as no:
            self.refused[str(no)] += 1
            back.write(refusal())
            await back.drain()
            return
        up = self.upstream
        far, forth = await asyncio.open_connection(up.host, up.port, ssl=context, server_hostname=up.host, limit=LIMIT)
        try:
            forth.write(head.encode("latin-1"))
            await forth.drain()
            asking = asyncio.ensure_future(pump(near, forth))
            await pump(far, back)
            asking.cancel()
        finally:
            forth.close()

    def passed_on(self, head: str) -> tuple[str, ssl.SSLContext]:
        """The head as the server behind gets it, and as whom the connection is opened."""
        first, *lines = head.rstrip("\r\n").split("\r\n")
        fields = [line.partition(":") for line in lines]
        named = {name.strip().lower(): value.strip() for name, _, value in fields}
        self.served += 1
        upgrades = "upgrade" in named
        self.upgraded += upgrades
        kept = [line for line, (name, _, _) in zip(lines, fields, strict=True) if name.strip().lower() != "connection" or upgrades]
        context = self.upstream.anybody
        scheme, _, token = named.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.startswith(eks_token.PREFIX):
            self.admit(token)
            context = self.upstream.administrator
            kept = [line for line in kept if line.partition(":")[0].strip().lower() != "authorization"]
            if self.upstream.authorization is not None:
                kept.append(f"Authorization: {self.upstream.authorization()}")
        if not upgrades:
            kept.append("Connection: close")
        return "\r\n".join([first, *kept]) + "\r\n\r\n", context

    def admit(self, token: str) -> None:
        """A token is judged once a minute: access that was taken away ends."""
        now = time.monotonic()
        if self.known.get(token, 0) < now:
            self.judge(token)
            self.known[token] = now + 60


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
