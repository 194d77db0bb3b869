"""vault.* on three real OpenBao servers: the real binary installs, initialises, unseals and configures them through the sandbox's Kubernetes.

What can go wrong there, each both resumed and rolled back: an init whose answer is lost, shares that are not Vault's, a
join before there is a leader, servers that restart sealed, a lost leader, the kill of platflow itself while audit devices
and logins are made, and between the end of the root token and its being forgotten.
"""

import pathlib
import threading
import time

import pins
from harness import kubelet, openbao
from harness.openbao import wait_for
from harness.report import Report
from harness.sandbox import Sandbox
from harness.sandbox_vault import NAMESPACE, control
from harness.vault_side import Side
from harness.vault_world import ENVIRONMENT, VaultWorld

OPENBAO = pins.image("quay.io/openbao/openbao")
# OpenBao stands in for HashiCorp Vault: with this it takes audit devices by API, as that does.
VAULT, BY_API = pins.image("hashicorp/vault"), "\nunsafe_allow_api_audit_creation = true\n"
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


def dead(report: Report, world: VaultWorld, what: str, root: str) -> None:
    """The root token that was on record opens nothing on any server."""
    report.true(f"{what}: there was a root token", root.startswith("s."), len(root))
    side = world.servers()
    assert side is not None
    for path in ("auth/token/lookup-self", "sys/mounts"):
        codes = [side.call(i, "GET", path, token=root).status for i in range(3)]
        report.check(f"{what}: the old root token is refused {path}", [403] * 3, codes)
    side.close()


def killed_and_resumed(report: Report, world: VaultWorld, roots: list[str]) -> None:
    """SIGKILL of platflow again and again on its way, and of the first server while the others wait for a leader."""
    done = threading.Event()
    world.unreachable.add("vault-0")

    def trouble() -> None:
        # The leader is not to be reached when another asks to join it; then it dies, and comes back sealed: nobody can
        # join before it leads again.
        wait_for("a share is on record", lambda: done.is_set() or "vault/share-5" in world.secrets(), 120)
        roots.append(world.secret("vault/root-token"))
        wait_for("somebody asks to join", lambda: done.is_set() or world.in_vain, 120)
        report.true("join before the leader: it was tried", world.in_vain, world.in_vain)
        world.kubelet.kill("vault-0")
        world.unreachable.clear()
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
    side = restarted(world)
    report.check("sealed after a restart", [503] * 3, [side.health(i) for i in range(3)])
    report.check("a foreign share counts", 1, side.call(1, "PUT", "sys/unseal", {"key": JUNK}).at("progress"))
    again = world.platflow("run", str(world.folder / "runbook.yaml"), "--sandbox", check=False)
    report.check("sealed after a restart: a run unseals", 0, again.returncode)
    report.true("sealed after a restart: it said what differs", "unseal" in again.stdout + again.stderr, again.stderr[-500:])
    wait_for("one serves", lambda: side.active() is not None)
    failover(report, world, "failover")
    again = world.platflow("run", str(world.folder / "runbook.yaml"), "--sandbox", check=False)
    report.check("failover: a run unseals the lost one", 0, again.returncode)
    wait_for("two stand by", lambda: sorted(side.health(i) for i in range(3)) == [200, 429, 429])
    side.close()


def failover(report: Report, world: VaultWorld, what: str) -> None:
    """The leader is killed, and another leads."""
    side = world.servers()
    assert side is not None
    leader = wait_for("one leads", lambda: None if side.active() is None else side.active() + 1) - 1
    started = time.monotonic()
    world.kubelet.kill(f"vault-{leader}")
    wait_for("another leads", lambda: side.active() not in (None, leader), 30)
    report.true(f"{what}: another leads within 15 s", time.monotonic() - started < 15)
    side.close()


def wrong_share(report: Report, world: VaultWorld, sealed: bytes) -> None:
    """One of the shares on our own record is of another Vault: the others open the servers."""
    world.damage("vault/share-2", sealed)
    side = restarted(world)
    again = world.platflow("run", str(world.folder / "runbook.yaml"), "--sandbox", check=False)
    report.check("a wrong share on our own record: a run unseals", (0, ""), (again.returncode, again.stderr[-900:] * bool(again.returncode)))
    wait_for("one serves, two stand by", lambda: sorted(side.health(i) for i in range(3)) == [200, 429, 429])
    side.close()


def restarted(world: VaultWorld) -> Side:
    """All three servers, restarted and sealed."""
    for name in ("vault-0", "vault-1", "vault-2"):
        world.kubelet.kill(name)
    side = world.servers()
    assert side is not None
    wait_for("all back", lambda: [side.health(i) for i in range(3)] == [503] * 3)
    return side


def finished_and_sealed(report: Report, world: VaultWorld) -> None:
    """A finished run whose servers are all sealed, with somebody's share in the way."""
    report.check("to be sealed: the run ends", 0, world.platflow("resume", world.run, check=False).returncode)
    side = restarted(world)
    report.check("sealed: a foreign share counts", 1, side.call(0, "PUT", "sys/unseal", {"key": JUNK}).at("progress"))
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
    roots: list[str] = []
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", OPENBAO) as world:
        report.true("Kubernetes auth: killed as it is made", world.killed_when("Kubernetes auth", world.said(*LOGINS)))
        world.undo("--to", "base")
        report.case("Kubernetes auth, undone", lambda: gone(report, world, "rolled back: Kubernetes auth"))
        world.to_gate("resume", world.run)
        report.case("killed and resumed", lambda: killed_and_resumed(report, world, roots))
        report.case("whole, audit by configuration", lambda: whole(report, world, "audit by configuration"))
        report.case("root token revoked", lambda: dead(report, world, "root token revoked", roots[0]))
        report.case("healed", lambda: heals(report, world))
        report.case("whole after healing", lambda: whole(report, world, "after restarts"))
        control(sandbox, "clock", {"speed": 600})
        ended = world.platflow("destroy", ENVIRONMENT, "--sandbox", "--confirm", ENVIRONMENT, check=False)
        report.check("destroyed", 0, ended.returncode)
        report.check("destroyed: no key is left on record", [], world.secrets())


# What the first server says in its log when something of the way is done.
AUDITED, LOGINS = ("enabled audit backend",), ("enabled credential backend",)
REVOKED = ('"type":"response"', '"path":"auth/token/revoke-self"', '"display_name":"root"')


def through_vault(report: Report, folder: pathlib.Path) -> None:
    """Killed at each place of the way behind the unsealing, and resumed; then the leader is lost, and all is undone."""
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", VAULT, BY_API) as world:
        places = {"audit by API": AUDITED, "Kubernetes auth": LOGINS}
        for what, words in places.items():
            report.true(f"{what}: killed as it is made", world.killed_when(what, world.said(*words)))
        report.case("between revoked and forgotten", lambda: between(report, world, "killed between revoked and forgotten"))
        finished = world.platflow("resume", world.run, check=False)
        report.check("killed three times: the run ends", (0, ""), (finished.returncode, finished.stderr[-900:] * bool(finished.returncode)))
        report.case("whole, audit by API", lambda: whole(report, world, "audit by API"))
        report.case("failover, undone", lambda: failover(report, world, "failover before a rollback"))
        world.undo("--to", "base")
        report.case("rolled back right after a failover", lambda: gone(report, world, "rolled back right after a failover"))
        world.to_gate("resume", world.run)
        report.case("join before the leader, undone", lambda: early(report, world))
        for when, line in list(KILLS.items())[:2]:
            world.to_gate("resume", world.run)
            lose = lambda line=line: world.kubelet.kill_at("vault-0", line)  # noqa: E731
            report.case(f"rollback of a lost init, {when}", lambda: lost_and_undone(report, world, f"killed {when}", lose))


def between(report: Report, world: VaultWorld, what: str) -> None:
    """The root token is revoked, and platflow dies before it knows and has forgotten it."""
    root: list[str] = []
    revoked = world.said(*REVOKED)

    def look() -> bool:
        if not root and "vault/root-token" in world.secrets():
            root.append(world.secret("vault/root-token"))
            # From here on the network is slow: there is time between a server's word and its being heard.
            world.front.lag = 0.15
        return revoked()

    report.true(f"{what}: killed", world.killed_when(what, look, mute=True))
    report.true(f"{what}: it is still on record", "vault/root-token" in world.secrets(), world.secrets())
    dead(report, world, what, root[0])


def through_rollbacks(report: Report, folder: pathlib.Path) -> None:
    """The same places, and sealed servers: platflow dies there, and is told to undo instead of to go on."""
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", VAULT, BY_API) as world:
        trouble = {
            "audit by API": lambda: world.killed_when("audit by API", world.said(*AUDITED)),
            "between revoked and forgotten": lambda: between(report, world, "undone between revoked and forgotten"),
            "sealed after a restart, with a foreign share": lambda: finished_and_sealed(report, world),
        }
        for what, body in trouble.items():
            report.case(what, body)
            earlier = world.sealed("vault/share-2")
            world.undo("--to", "base")
            report.case(f"{what}, undone", lambda what=what: gone(report, world, f"rolled back: {what}"))
            world.to_gate("resume", world.run)
        report.check("made anew: the run ends", 0, world.platflow("resume", world.run, check=False).returncode)
        report.case("a wrong share on our own record", lambda: wrong_share(report, world, earlier))


def early(report: Report, world: VaultWorld) -> None:
    """A join that no leader answers: platflow dies there, and is told to undo."""
    world.unreachable.add("vault-0")
    hit = world.killed_when("a join before the leader", lambda: bool(world.in_vain))
    world.unreachable.clear()
    report.true("join before the leader: it was tried, and killed there", hit and world.in_vain, world.in_vain)
    world.undo("--to", "base")
    gone(report, world, "rolled back: join before the leader")


def through_lost_inits(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox, VaultWorld(sandbox, folder / "w", OPENBAO, upto="init") as world:
        report.case("reply cut", lambda: lost_init(report, world, "reply of init cut", lambda: reply_cut(world)))
        for when, line in KILLS.items():
            world.again()
            lose = lambda line=line: world.kubelet.kill_at("vault-0", line)  # noqa: E731
            report.case(when, lambda: lost_init(report, world, f"server killed in its init, {when}", lose))
        world.again()
        report.case("rollback of a lost init", lambda: lost_and_undone(report, world, "its reply cut", lambda: reply_cut(world)))


def lost_and_undone(report: Report, world: VaultWorld, what: str, lose) -> None:
    """platflow and the init are lost together; nobody resumes, the run is rolled back."""
    loss = threading.Thread(target=lose, daemon=True)
    loss.start()
    running = world.start("resume", world.run)
    loss.join()
    running.kill()
    running.wait()
    world.undo("--to", "base")
    gone(report, world, f"rolled back with a lost init, {what}")


def timed(report: Report, part, folder: pathlib.Path) -> None:
    started = time.monotonic()
    report.case(part.__name__, lambda: part(report, folder))
    report.coverage.append(f"{part.__name__.replace('_', ' ')}: {time.monotonic() - started:.0f} s")


def run(report: Report, folder: pathlib.Path) -> None:
    if not openbao.binary().exists():
        report.skip("vault steps", f"{openbao.binary()} is missing")
        return
    if not kubelet.possible():
        report.skip("vault steps", "no mount namespace may be made here (unshare --mount)")
        return
    # Each has a world of its own; real servers mostly wait, so they share the time.
    parts = [through_openbao, through_vault, through_rollbacks, through_lost_inits]
    threads = []
    for part in parts:
        (folder / part.__name__).mkdir()
        threads.append(threading.Thread(target=timed, args=(report, part, folder / part.__name__)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
