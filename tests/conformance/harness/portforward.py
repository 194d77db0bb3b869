"""Local ports that lead into pods by the API server's port-forward (`v4.channel.k8s.io`), and the few calls of its API that a suite needs."""

import base64
import contextlib
import json
import pathlib
import select
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

import websocket


class Cluster:
    """An API server, by endpoint, CA file, and a way to get a token for each call."""

    def __init__(self, endpoint: str, authority: pathlib.Path, token: Callable[[], str]):
        self.endpoint, self.authority, self.token = endpoint, authority, token
        self.context = ssl.create_default_context(cafile=str(authority))

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.endpoint + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"{}")

    def secret(self, namespace: str, name: str, member: str) -> str:
        _, found = self.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return base64.b64decode(found["data"][member]).decode()

    def dial(self, namespace: str, pod: str, port: int) -> websocket.WebSocket:
        url = f"{self.endpoint.replace('https', 'wss')}/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        return websocket.create_connection(
            url,
            subprotocols=["v4.channel.k8s.io"],
            header=[f"Authorization: Bearer {self.token()}"],
            sslopt={"ca_certs": str(self.authority)},
            timeout=60,
        )


class Forwarder:
    """A listener on a loopback port, a free one by default; each connection is one port-forward to the pod of this name."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, port: int, listen_on: int = 0):
        self.cluster, self.where = cluster, (namespace, pod, port)
        self.listener = socket.create_server(("127.0.0.1", listen_on))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError, websocket.WebSocketException), near:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far = self.cluster.dial(*self.where)
            try:
                self.exchange(near, far)
            finally:
                far.shutdown()

    @staticmethod
    def exchange(near: socket.socket, far: websocket.WebSocket) -> None:
        """Both directions in one thread. The first frame of each channel names its port; channel 1 carries errors."""
        named = set()
        while True:
            ready = [far.sock] if far.sock.pending() else select.select([near, far.sock], [], [])[0]
            if far.sock in ready:
                operation, frame = far.recv_data()
                if operation != websocket.ABNF.OPCODE_BINARY:
                    return
                channel, payload = frame[0], frame[1:]
                if channel not in named:
                    named.add(channel)
                elif channel == 0:
                    near.sendall(payload)
                else:
                    return
            if near in ready:
                data = near.recv(16384)
                if not data:
                    return
                far.send_binary(b"\x00" + data)

    def close(self) -> None:
        self.listener.close()
