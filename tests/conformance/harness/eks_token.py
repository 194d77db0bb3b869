"""Whether a bearer token is one that EKS would take: a presigned `GetCallerIdentity` that names this cluster, signed lately.

moto checks no signatures, so the signature is computed again here from the secret that the suite gave out; who signed is
asked of STS itself, with the header that the signature covers. What the caller may do is not decided here.
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import re
import urllib.error
import urllib.parse
import urllib.request

PREFIX = "k8s-aws-v1."
HEADER = "x-k8s-aws-id"
# As the authenticator of EKS has it: a token is good for a quarter of an hour, and clocks may differ a little.
LIFE = datetime.timedelta(minutes=15)
SKEW = datetime.timedelta(minutes=5)


class Refused(Exception):
    """The token is none that opens this cluster; the text says why."""


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")


def signature(url: urllib.parse.SplitResult, query: dict[str, str], cluster: str, secret: str) -> str:
    """What the signature of this URL must be (Signature Version 4, in the query)."""
    shown = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
    ordered = "&".join(f"{quoted(name)}={quoted(shown[name])}" for name in sorted(shown))
    headers = {"host": url.netloc, HEADER: cluster}
    signed = query["X-Amz-SignedHeaders"].split(";")
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed)
    empty = hashlib.sha256(b"").hexdigest()
    canonical = "\n".join(["GET", url.path or "/", ordered, lines, ";".join(signed), empty])
    scope = query["X-Amz-Credential"].partition("/")[2]
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def fresh(query: dict[str, str]) -> bool:
    signed_at = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    age = datetime.datetime.now(datetime.UTC) - signed_at
    return -SKEW <= age <= LIFE and 0 < int(query["X-Amz-Expires"]) <= 900


def check(token: str, cluster: str, sts: str, secret: str) -> str:
    """The ARN of whoever signed the token, as STS says; `Refused` if it is not good for this cluster."""
    try:
        padded = token.removeprefix(PREFIX) + "=" * (-len(token.removeprefix(PREFIX)) % 4)
        text = base64.urlsafe_b64decode(padded).decode()
        url = urllib.parse.urlsplit(text)
        query = dict(urllib.parse.parse_qsl(url.query, strict_parsing=True))
        if not token.startswith(PREFIX) or "=" in token:
            raise Refused("it is no token of EKS")
        if url.netloc != urllib.parse.urlsplit(sts).netloc or url.path not in ("", "/"):
            raise Refused(f"it was signed for {url.netloc}{url.path}, not for STS")
        if query.get("Action") != "GetCallerIdentity":
            raise Refused(f"it asks for {query.get('Action')}")
        if HEADER not in query["X-Amz-SignedHeaders"].split(";"):
            raise Refused("it names no cluster")
        if not fresh(query):
            raise Refused("it is too old, or good for too long")
        if not hmac.compare_digest(query["X-Amz-Signature"], signature(url, query, cluster, secret)):
            raise Refused("the signature is wrong, or made for another cluster")
    except (KeyError, ValueError, binascii.Error, UnicodeDecodeError) as error:
        raise Refused(f"it cannot be read: {error!r}") from error
    request = urllib.request.Request(text, headers={HEADER: cluster})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = re.search(r"<Arn>([^<]+)</Arn>", answer.read().decode())
    except urllib.error.URLError as error:
        raise Refused(f"STS does not say whose it is: {error}") from error
    if found is None:
        raise Refused("STS does not say whose it is")
    return found.group(1)
