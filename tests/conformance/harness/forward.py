"""`python -m harness.forward ENVIRONMENT NAMESPACE POD PORT [LISTEN_ON]`: see `tests/conformance/forward`, which calls it."""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import threading

from harness.portforward import Cluster, Forwarder
from harness.sandbox import binary


def said(*arguments: str) -> dict:
    done = subprocess.run([str(binary()), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())
    return json.loads(done.stdout)


def main(environment: str, namespace: str, pod: str, port: str, listen_on: str = "0") -> None:
    place = said("kubeconfig", environment)["clusters"][0]["cluster"]
    with tempfile.TemporaryDirectory() as folder:
        authority = pathlib.Path(folder) / "ca.pem"
        authority.write_bytes(base64.b64decode(place["certificate-authority-data"]))
        token = lambda: said("k8s-token", "--environment", environment)["status"]["token"]  # noqa: E731
        cluster = Cluster(place["server"], authority, token)
        forwarder = Forwarder(cluster, namespace, pod, int(port), int(listen_on))
        print(f"127.0.0.1:{forwarder.port} leads to {pod}:{port} in {namespace}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            forwarder.close()


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        raise SystemExit("ENVIRONMENT NAMESPACE POD PORT [LISTEN_ON]")
    main(*sys.argv[1:])
