"""vault.* on three real OpenBao servers: the real binary installs, initialises, unseals and configures them through the sandbox's Kubernetes."""

import pathlib
import threading
import time

from harness import kubelet, openbao
from harness.openbao import wait_for
from harness.report import Report
from harness.sandbox import Sandbox
from harness.sandbox_vault import NAMESPACE, control
from harness.vault_world import ENVIRONMENT, VaultWorld

OPENBAO = "quay.io/openbao/openbao:2.7.2"
# OpenBao stands in for HashiCorp Vault: with this it takes audit devices by API, as that does.
VAULT, BY_API = "hashicorp/vault:1.20.4", "\nunsafe_allow_api_audit_creation = true\n"
SHARES = [f"vault/share-{number}" for number in range(1, 6)]
JUNK = "5a" * 32 + "07"
# Where in its init the first server is killed: each leaves another state, and none of them ever answers an init again.
KILLS = {
    "before it is elected": "storage.raft: creating Raft",
    "with a keyring and no seal": "core: security barrier initialized",
    "after it has its root token": "core: root token generated",
}


def whole(report: Report, world: VaultWorld, what: str) -> None:
    """Everything that a finished run must have left in real servers."""
    side = world.servers()
    assert side is not None
    codes = sorted(side.health(i) for i in range(3))
    report.check(f"{what}: one serves, two stand by", [200, 429, 429], codes)
    report.check(f"{what}: the keys on record, no root token", SHARES, world.secrets())
    login = world.login(side)
    token = str(login.at("auth", "client_token"))
    report.check(f"{what}: platflow logs in", (200, ["default", "platflow"]), (login.status, login.at("auth", "policies")))
    active = side.active() or 0
    raft = side.call(active, "GET", "sys/storage/raft/configuration", token=token)
    servers = raft.at("data", "config", "servers") or []
    report.check(f"{what}: three voters", [True] * 3, [server["voter"] for server in servers])
    audit = side.call(active, "GET", "sys/audit", token=token).at("data") or {}
    report.check(f"{what}: audited to stdout", ["stdout"], [device["options"]["file_path"] for device in audit.values()])
    mounts = side.call(active, "GET", "sys/mounts", token=token).at("data") or {}
    report.check(f"{what}: kv 2", {"version": "2"}, (mounts.get("secret/") or {}).get("options"))
    for path in ("sys/policies/acl/root-like", "secret/data/others", "sys/raw/core"):
        report.check(f"{what}: {path} is not platflow's", 403, side.call(active, "POST", path, {"data": {}}, token).status)
    written = side.call(active, "POST", "secret/data/platflow/canary", {"data": {"a": "b"}}, token)
    report.check(f"{what}: it writes its own", 200, written.status)
    report.check(f"{what}: its token ends", 204, side.call(active, "POST", "auth/token/revoke-self", {}, token).status)
    side.close()


def killed_and_resumed(report: Report, world: VaultWorld) -> None:
    """SIGKILL of platflow again and again on its way, and of the first server while the others wait for a leader."""
    done = threading.Event()

    def trouble() -> None:
        # The leader dies between init and the joins, and comes back sealed: nobody can join before it leads again.
        while not done.is_set() and "vault/share-5" not in world.secrets():
            time.sleep(0.05)
        world.kubelet.kill("vault-0")
        side = world.servers()
        if side is not None:
            wait_for("vault-1 answers", lambda: side.health(1) > 0)
            side.call(1, "PUT", "sys/unseal", {"key": JUNK})

    thread = threading.Thread(target=lambda: report.case("trouble on the way", trouble), daemon=True)
    thread.start()
    kills = 0
    for lines in (4, 6, 8, 12):
        kills += world.killed_after(lines)
    finished = world.platflow("resume", world.run, check=False)
    done.set()
    thread.join()
    report.check("killed on its way: the run ends", 0, finished.returncode)
    report.true("killed on its way: the kills hit", kills >= 2, kills)


def heals(report: Report, world: VaultWorld) -> None:
    """All servers restart sealed, with somebody's junk share in the way; then the leader is lost."""
    for name in ("vault-0", "vault-1", "vault-2"):
        world.kubelet.kill(name)
    side = world.servers()
    assert side is not None
    wait_for("all back", lambda: [side.health(i) for i in range(3)] == [503] * 3)
    report.check("sealed after a restart", [503] * 3, [side.health(i) for i in range(3)])
    report.check("a foreign share counts", 1, side.call(1, "PUT", "sys/unseal", {"key": JUNK}).at("progress"))
    again = world.platflow("run", str(world.folder / "runbook.yaml"), "--sandbox", check=False)
    report.check("sealed after a restart: a run unseals", 0, again.returncode)
    report.true("sealed after a restart: it said what differs", "unseal" in again.stdout + again.stderr, again.stderr[-500:])
    wait_for("one serves", lambda: side.active() is not None)
    leader = side.active() or 0
    started = time.monotonic()
    world.kubelet.kill(f"vault-{leader}")
    wait_for("another leads", lambda: side.active() not in (None, leader), 30)
    report.true("failover: another leads within 15 s", time.monotonic() - started < 15)
    again = world.platflow("run", str(world.folder / "runbook.yaml"), "--sandbox", check=False)
    report.check("failover: a run unseals the lost one", 0, again.returncode)
    wait_for("two stand by", lambda: sorted(side.health(i) for i in range(3)) == [200, 429, 429])
    side.close()


def lost_init(report: Report, world: VaultWorld, what: str, lose, tries: int = 3) -> None:
    """The reply of init never comes; the run heals it on exactly the first server's volume, and keeps keys that open it."""
    before = world.claims()
    loss = threading.Thread(target=lose, daemon=True)
    loss.start()
    finished = world.platflow("resume", world.run, check=False)
    loss.join()
    after = world.claims()
    if finished.returncode == 0 and before == after and tries > 1:
        # On a busy machine the loss can come too late: the reply was heard, and there was nothing to heal.
        world.again()
        return lost_init(report, world, what, lose, tries - 1)
    report.check(f"{what}: the run ends", 0, finished.returncode)
    if finished.returncode != 0:
        report.fail(what, finished.stderr[-1500:])
    report.check(f"{what}: the first volume alone was wiped", [False, True, True], [a == b for a, b in zip(before, after)])
    report.check(f"{what}: root token and shares on record", ["vault/root-token", *SHARES], world.secrets())
    world.kubelet.kill("vault-0")
    side = world.servers()
    assert side is not None
    wait_for("back sealed", lambda: side.health(0) == 503)
    for number in (5, 1, 3):
        side.call(0, "PUT", "sys/unseal", {"key": world.share(number)})
    wait_for("it serves", lambda: side.health(0) == 200)
    report.check(f"{what}: the shares on record open it", 200, side.health(0))
    side.close()


def reply_cut(world: VaultWorld) -> None:
    """From the moment the server has begun, not a byte of an answer comes through until it has finished."""
    pod = wait_for("vault-0", lambda: world.kubelet.pods.get("vault-0"))
    log = world.kubelet.log(pod)
    begun = len(log.read_bytes())
    wait_for("init begins", lambda: b"creating Raft" in log.read_bytes()[begun:])
    world.front.mute.set()
    wait_for("init ends", lambda: b"core: root token generated" in log.read_bytes()[begun:])
    wait_for("nobody waits", lambda: not world.front.streams or world.front.cut() is None)
    world.front.mute.clear()


def gone(report: Report, world: VaultWorld, what: str) -> None:
    """Rolled back: no pod, claim, intent or key is left of Vault."""
    report.check(f"{what}: no key is left on record", [], world.secrets())
    for kind in ("pods", "persistentvolumeclaims", "configmaps", "secrets", "statefulsets"):
        group = "/apis/apps/v1" if kind == "statefulsets" else "/api/v1"
        _, found = world.cluster.call("GET", f"{group}/namespaces/{NAMESPACE}/{kind}")
        names = [item["metadata"]["name"] for item in found.get("items", [])]
        report.check(f"{what}: no {kind}", [], [name for name in names if "vault" in name])
    wait_for("no server", lambda: not world.kubelet.pods)


def through_openbao(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", OPENBAO) as world:
        report.case("killed and resumed", lambda: killed_and_resumed(report, world))
        report.case("whole, audit by configuration", lambda: whole(report, world, "audit by configuration"))
        report.case("healed", lambda: heals(report, world))
        report.case("whole after healing", lambda: whole(report, world, "after restarts"))
        control(sandbox, "clock", {"speed": 600})
        gone = world.platflow("destroy", ENVIRONMENT, "--sandbox", "--confirm", ENVIRONMENT, check=False)
        report.check("destroyed", 0, gone.returncode)
        report.check("destroyed: no key is left on record", [], world.secrets())


def through_vault(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", VAULT, BY_API) as world:
        finished = world.platflow("resume", world.run, check=False)
        report.check("audit by API: the run ends", 0, finished.returncode)
        report.case("whole, audit by API", lambda: whole(report, world, "audit by API"))
        world.undo("--to", "base")
        report.case("rolled back to before Vault", lambda: gone(report, world, "rolled back to before Vault"))


def through_lost_inits(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", OPENBAO, upto="init") as world:
        report.case("reply cut", lambda: lost_init(report, world, "reply of init cut", lambda: reply_cut(world)))
        for when, line in KILLS.items():
            world.again()
            lose = lambda line=line: world.kubelet.kill_at("vault-0", line)  # noqa: E731
            report.case(when, lambda: lost_init(report, world, f"server killed in its init, {when}", lose))
        world.again()
        report.case("rollback of a lost init", lambda: lost_and_undone(report, world))


def lost_and_undone(report: Report, world: VaultWorld) -> None:
    """platflow and the reply are lost together; nobody resumes, the run is rolled back."""
    loss = threading.Thread(target=lambda: reply_cut(world), daemon=True)
    loss.start()
    running = world.start("resume", world.run)
    loss.join()
    running.kill()
    running.wait()
    world.undo("--to", "base")
    gone(report, world, "rolled back with a lost init")


def run(report: Report, folder: pathlib.Path) -> None:
    if not openbao.binary().exists():
        report.skip("vault steps", f"{openbao.binary()} is missing")
        return
    if not kubelet.possible():
        report.skip("vault steps", "no mount namespace may be made here (unshare --mount)")
        return
    # Each has a world of its own; real servers mostly wait, so they share the time.
    parts = [through_openbao, through_vault, through_lost_inits]
    threads = []
    for part in parts:
        (folder / part.__name__).mkdir()
        body = lambda part=part: report.case(part.__name__, lambda: part(report, folder / part.__name__))  # noqa: E731
        threads.append(threading.Thread(target=body))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
