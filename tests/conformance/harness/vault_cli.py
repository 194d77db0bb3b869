"""An ordinary session of the `bao` command line against a Vault, and what each command said."""

import json
import os
import subprocess

from harness.openbao import binary
from harness.vault_side import Side, shape

POLICY = 'path "secret/data/cli" {\n  capabilities = ["read"]\n}\n'
# What an operator types; `TOKEN` is the token that the session made.
SESSION = """
status -format=json
operator raft list-peers -format=json
operator raft autopilot state -format=json
token lookup -format=json
secrets list -format=json
secrets enable -path=cli -version=2 kv
secrets enable -path=cli -version=2 kv
kv put -format=json -mount=cli app user=one
kv put -format=json -mount=cli app user=two
kv put -format=json -mount=cli -cas=1 app user=three
kv get -format=json -mount=cli app
kv get -format=json -mount=cli -version=1 app
kv get -format=json -mount=cli none
kv get -format=json cli/app
kv list -format=json -mount=cli
kv metadata get -format=json -mount=cli app
kv delete -mount=cli app
kv undelete -mount=cli -versions=2 app
kv destroy -mount=cli -versions=1 app
kv metadata delete -mount=cli app
secrets disable cli
policy list -format=json
policy write cli -
policy read -format=json cli
policy read none
policy delete cli
auth list -format=json
auth enable kubernetes
auth enable kubernetes
auth disable kubernetes
audit list -format=json
token create -format=json -policy=default -ttl=768h
token capabilities -format=json TOKEN sys/mounts
token lookup -format=json TOKEN
token revoke TOKEN
token lookup -format=json TOKEN
read -format=json sys/health
read -format=json sys/nonsense
""".strip().splitlines()


def spoken(text: str) -> object:
    try:
        return shape(json.loads(text))
    except ValueError:
        return "<text>" if text.strip() else ""


def session(side: Side, said: dict[str, object]) -> None:
    """Runs it with the root token; collects exit code and shape of the output, by command."""
    active = side.active() or 0
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(side.authority.parent),
        "BAO_ADDR": side.url(active),
        "BAO_CACERT": str(side.authority),
        "BAO_TOKEN": side.root,
        "BAO_CLI_NO_COLOR": "1",
    }
    token = ""
    for number, line in enumerate(SESSION):
        command = [str(binary()), *line.replace("TOKEN", token or "TOKEN").split()]
        given = POLICY if line.endswith(" -") else None
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=60)
        if line.startswith("token create"):
            token = json.loads(done.stdout)["auth"]["client_token"] if done.returncode == 0 else ""
        said[f"{number + 1:2} bao {line}"] = {"exit": done.returncode, "output": spoken(done.stdout)}
