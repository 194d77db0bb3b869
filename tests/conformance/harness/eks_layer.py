"""moto with a whole EKS in front of it: `python -m harness.eks_layer PORT SECONDS ENDPOINT AUTHORITY_FILE`.

Adds to `moto_layer` what a run of a whole platform asks besides: an endpoint and an authority for every cluster (those of
an API server that is there), the versions of Kubernetes and of add-ons, quotas, presigned requests. It makes no machines: the
nodes are those of the API server behind the endpoint.
"""

import base64
import json
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Request, Response

from harness.moto_layer import Environ, Layer, Start

# As `aws eks describe-cluster-versions` and `describe-addon-versions` answer, shortened to what is asked here.
VERSIONS = {"1.36": "STANDARD_SUPPORT", "1.35": "STANDARD_SUPPORT", "1.30": "EXTENDED_SUPPORT"}
ADDONS = {
    "vpc-cni": "v1.21.1-eksbuild.1",
    "kube-proxy": "v1.36.0-eksbuild.2",
    "coredns": "v1.13.1-eksbuild.1",
    "aws-ebs-csi-driver": "v1.53.0-eksbuild.1",
}
# Those of a fresh account, except for the machines: a fresh account may have only a few.
QUOTAS = {"L-F678F1CE": 5.0, "L-0263D0A3": 5.0, "L-1216C47A": 64.0, "L-34B43A08": 64.0}


class EksLayer(Layer):
    """See the file."""

    def __init__(self, inner: Any, seconds: float, endpoint: str, authority: str):
        super().__init__(inner, seconds)
        self.endpoint, self.authority = endpoint, authority

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        if "X-Amz-Credential" in query and "HTTP_AUTHORIZATION" not in environ:
            # A presigned request: moto finds the service by the header alone.
            environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={query['X-Amz-Credential']}, SignedHeaders=host, Signature=0"
        if "/servicequotas/" in environ.get("HTTP_AUTHORIZATION", ""):
            return self._quota(Request(environ))(environ, start)
        return super().__call__(environ, start)

    def _quota(self, request: Request) -> Response:
        given = json.loads(request.get_data() or b"{}")
        value = QUOTAS.get(given.get("QuotaCode"))
        kind = "application/x-amz-json-1.1"
        if value is None:
            return Response(json.dumps({"__type": "NoSuchResourceException", "message": "no such quota"}), 400, content_type=kind)
        return Response(json.dumps({"Quota": {**given, "Value": value, "Unit": "None"}}), 200, content_type=kind)

    def _eks(self, request: Request, body: bytes, environ: Environ) -> Response:
        if request.path == "/cluster-versions":
            found = [{"clusterVersion": name, "versionStatus": status} for name, status in VERSIONS.items()]
            return self._answer({"clusterVersions": found})
        if request.path == "/addons/supported-versions":
            return self._answer({"addons": self._addon_versions(request.args)})
        return super()._eks(request, body, environ)

    @staticmethod
    def _addon_versions(asked: Any) -> list[dict[str, Any]]:
        name, version = asked.get("addonName"), asked.get("kubernetesVersion")
        if name not in ADDONS or version not in VERSIONS:
            return []
        fits = [{"clusterVersion": version, "platformVersions": ["*"], "defaultVersion": True}]
        return [{"addonName": name, "addonVersions": [{"addonVersion": ADDONS[name], "compatibilities": fits}]}]

    def _complete(self, request: Request, given: dict[str, Any], shown: dict[str, Any]) -> None:
        super()._complete(request, given, shown)
        if shown.get("status") == "ACTIVE":
            shown["endpoint"] = self.endpoint
            shown["certificateAuthority"] = {"data": self.authority}
        else:
            shown.pop("endpoint", None)
            shown.pop("certificateAuthority", None)


def main(port: int, seconds: float, endpoint: str, authority: pathlib.Path) -> None:
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", endpoint), endpoint
    encoded = base64.b64encode(authority.read_bytes()).decode()
    application = EksLayer(DomainDispatcherApplication(create_backend_app), seconds, endpoint, encoded)
    run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4]))
