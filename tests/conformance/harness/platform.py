"""An account of moto with an EKS whose API server is somebody else's, and the real command in it: what a run, told nothing of tests, meets.

It starts and stops moto behind `eks_layer` and the front of the API server (`eks_front`), and decides nothing about what a
suite looks for. Everything that the command keeps lies in its own folder.
"""

import json
import os
import pathlib
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack

from harness import eks_token
from harness.aws import Aws
from harness.eks_front import EksFront, Upstream
from harness.sandbox import binary
from harness.servers import Server, free_port, layered
from harness.vault_world import authority

KEY_ID, SECRET = "AKIACONFORMANCE00000", "secret"
ADMINISTRATOR = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


class Platform:
    """`with Platform(folder, upstream, cluster_name, seconds) as platform:`; clusters and node groups take so many seconds."""

    def __init__(self, folder: pathlib.Path, upstream: Upstream, cluster: str, seconds: float = 3):
        self.folder, self.upstream, self.cluster, self.seconds = folder, upstream, cluster, seconds
        self.stack = ExitStack()
        self.log = folder / "platflow.log"

    def __enter__(self) -> "Platform":
        self.folder.mkdir(parents=True, exist_ok=True)
        authority(self.folder)
        try:
            certificate = (str(self.folder / "front.pem"), str(self.folder / "front.key"))
            self.front = self.stack.enter_context(EksFront(*certificate, self.upstream, self.judge))
            self.endpoint = f"https://127.0.0.1:{self.front.port}"
            self.moto: Server = self.stack.enter_context(
                layered(self.folder, free_port(), self.seconds, self.endpoint, self.folder / "front-ca.pem")
            )
            self.aws = Aws(self.moto.url)
            self.account = self.aws.must("sts", "GetCallerIdentity")["Account"]
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def judge(self, token: str) -> None:
        """As EKS: who signed must have an access entry with the administrator's policy, now."""
        arn = eks_token.check(token, self.cluster, self.moto.url, SECRET)
        aws = Aws(self.moto.url)
        found = aws.call("eks", "ListAssociatedAccessPolicies", clusterName=self.cluster, principalArn=arn)
        policies = [one["policyArn"] for one in found.answer.get("associatedAccessPolicies", [])]
        if ADMINISTRATOR not in policies:
            raise eks_token.Refused(f"{arn} has no access to {self.cluster}: {found.code or policies}")

    def surroundings(self) -> dict[str, str]:
        """As on the real cloud: only the endpoint is another."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PLATFLOW_"))},
            "AWS_ENDPOINT_URL": self.moto.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "PLATFLOW_STATE": str(self.folder / "runs"),
            "PLATFLOW_SECOND_KEY_STORE": str(self.folder / "second-store"),
        }

    def command(self, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """The real command, to its end; what it says is kept in `platflow.log`."""
        done = subprocess.run(
            [str(binary()), *arguments],
            env=self.surroundings(), capture_output=True, text=True, check=False, timeout=timeout, cwd=self.folder,
        )  # fmt: skip
        with self.log.open("a") as log:
            log.write(f"$ platflow {' '.join(arguments)}\n{done.stdout}{done.stderr}exit {done.returncode}\n\n")
        return done

    def killed(self, at: Callable[[dict], bool], *arguments: str) -> bool:
        """Runs the real command with a line for each durable event, SIGKILLs it at the first that is the one; whether it did."""
        with self.log.open("a") as log:
            log.write(f"$ platflow {' '.join(arguments)}   (SIGKILL on its way)\n")
            log.flush()
            running = subprocess.Popen(
                [str(binary()), *arguments, "--output", "jsonl"],
                env=self.surroundings(), stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
                text=True,
            )  # fmt: skip
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    log.write(line)
                    if at(json.loads(line)):
                        running.send_signal(signal.SIGKILL)
                        return running.wait(30) == -signal.SIGKILL
                return False
            finally:
                running.kill()
                running.wait()
                running.stdout.close()
