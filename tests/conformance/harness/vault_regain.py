"""What whoever holds the key shares can do without a token: a root token made, and the key split anew; the same calls on any Vault.

OpenBao answers them where its listener allows it, and so judges what HashiCorp Vault answers always: nobody else can here.
"""

import base64
import pathlib
from typing import Any

from harness.openbao import Servers, wait_for
from harness.vault_side import Side, kind, shape

LISTENER = "  disable_unauthed_rekey_endpoints = false\n  disable_unauthed_generate_root_endpoints = false"
JUNK = "5a" * 32 + "07"
HIDDEN = ("nonce", "otp", "encoded_token", "encoded_root_token")
Said = dict[str, tuple[int, Any]]


class OpenBao:
    """`with OpenBao(folder) as side:` is one server whose listener allows these calls; initialised and unsealed."""

    def __init__(self, folder: pathlib.Path):
        self.servers = Servers(folder, listener=LISTENER, count=1)

    def __enter__(self) -> Side:
        self.servers.__enter__()
        side = Side("OpenBao", [self.servers.all[0].port], self.servers.authority)
        made = side.call(0, "PUT", "sys/init", {"secret_shares": 5, "secret_threshold": 3})
        side.keys, side.root = made.at("keys") or [], str(made.at("root_token"))
        for share in side.keys[:3]:
            side.call(0, "PUT", "sys/unseal", {"key": share})
        wait_for("it serves", lambda: side.health(0) == 200)
        return side

    def __exit__(self, *_: object) -> None:
        self.servers.__exit__()


def masked(body: Any) -> Any:
    """Without what no two servers share."""
    if isinstance(body, dict):
        return {name: kind(value) if name in HIDDEN else shape(value, name) for name, value in body.items()}
    return body


def regained(side: Side, node: int) -> Said:
    """Every call, and what was said."""
    said: Said = {}

    def ask(label: str, method: str, path: str, body: object = None, token: str = "") -> Any:
        reply = side.call(node, method, path, body, token)
        text = masked(reply.body)
        errors = reply.errors
        if errors and reply.at("errors") is not None:
            # The nonce of an operation stands in the refusal of another one.
            text = {"errors": [" ".join("<nonce>" if word.count("-") == 4 else word for word in errors.split())]}
        said[label] = (reply.status, text)
        return reply

    def give(label: str, path: str, number: int, nonce: str) -> Any:
        return ask(label, "PUT", path, {"key": side.keys[number], "nonce": nonce})

    attempt, update = "sys/generate-root/attempt", "sys/generate-root/update"
    ask("root: before", "GET", attempt)
    ask("root: a share for none", "PUT", update, {"key": side.keys[0], "nonce": "none"})
    ask("root: hidden with too little", "PUT", attempt, {"otp": "short"})
    begun = ask("root: begun", "PUT", attempt, {})
    ask("root: begun twice", "PUT", attempt, {})
    ask("root: status", "GET", attempt)
    nonce = str(begun.at("nonce"))
    give("root: another nonce", update, 0, "1-2-3-4-5")
    ask("root: no share", "PUT", update, {"nonce": nonce})
    give("root: first share", update, 0, nonce)
    give("root: first share again", update, 0, nonce)
    give("root: second share", update, 1, nonce)
    done = give("root: third share", update, 2, nonce)
    ask("root: after", "GET", attempt)
    encoded = str(done.at("encoded_token"))
    hidden = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    root = "".join(chr(one ^ ord(other)) for one, other in zip(hidden, str(begun.at("otp")), strict=True))
    found = side.call(node, "GET", "auth/token/lookup-self", token=root)
    said["root: what the token may"] = (found.status, found.at("data", "policies"))
    nonce = str(ask("root: begun to be cancelled", "PUT", attempt, {}).at("nonce"))
    give("root: a share before it is cancelled", update, 0, nonce)
    ask("root: cancelled", "DELETE", attempt)
    ask("root: after it was cancelled", "GET", attempt)
    nonce = str(ask("root: begun with junk", "PUT", attempt, {}).at("nonce"))
    ask("root: junk", "PUT", update, {"key": JUNK, "nonce": nonce})
    give("root: a share with junk", update, 0, nonce)
    give("root: the last share with junk", update, 1, nonce)
    ask("root: after junk", "GET", attempt)
    ask("root: cancelled after junk", "DELETE", attempt)
    rekey(side, ask, give)
    said["sealed"] = (side.call(node, "PUT", "sys/seal", token=root).status, None)
    ask("root: of a sealed server", "GET", attempt)
    ask("rekey: of a sealed server", "GET", "sys/rekey/init")
    for number in (0, 1):
        ask(f"unsealed with new share {number + 1}", "PUT", "sys/unseal", {"key": side.keys[number]})
    return said


def rekey(side: Side, ask: Any, give: Any) -> None:
    init, update = "sys/rekey/init", "sys/rekey/update"
    ask("rekey: before", "GET", init)
    ask("rekey: more needed than there are", "PUT", init, {"secret_shares": 3, "secret_threshold": 4})
    ask("rekey: nothing said", "PUT", init, {})
    begun = ask("rekey: begun", "PUT", init, {"secret_shares": 3, "secret_threshold": 2})
    ask("rekey: begun twice", "PUT", init, {"secret_shares": 3, "secret_threshold": 2})
    ask("rekey: status", "GET", init)
    nonce = str(begun.at("nonce"))
    give("rekey: another nonce", update, 0, "1-2-3-4-5")
    for number in (3, 4):
        give(f"rekey: share {number}", update, number, nonce)
    done = give("rekey: the last share", update, 0, nonce)
    side.keys = done.at("keys") or []
    ask("rekey: after", "GET", init)
