"""A behaviour of AWS, as a short play on any endpoint, and what real AWS would make of it."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from harness.aws import Aws
from harness.aws_world import Builder, Network
from harness.operations import Operation
from harness.polling import until
from harness.report import Report


class Peer(Builder):
    """An endpoint on which behaviours are played; made things have names of their own."""

    def __init__(self, name: str, endpoint: str, plant: Callable[["Peer", str], str]):
        super().__init__(Aws(endpoint))
        self.peer = name
        self._plant = plant
        self._network: Network | None = None
        self._cluster: str | None = None

    def code(self, service: str, operation: str, /, **parameters: Any) -> str:
        """`ok`, or the code of the refusal."""
        return self.aws.call(service, operation, **parameters).code or "ok"

    def plant(self, what: str) -> str:
        """A volume, snapshot, interface or load balancer that something else made; its id."""
        return self._plant(self, what)

    @property
    def shared_network(self) -> Network:
        if self._network is None:
            self._network = self.network()
            tables = self.aws.must(
                "ec2", "DescribeRouteTables", Filters=[{"Name": "vpc-id", "Values": [self._network.vpc]}]
            )
            main = tables["RouteTables"][0]["RouteTableId"]
            everywhere = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": self._network.gateway}
            self.aws.must("ec2", "CreateRoute", RouteTableId=main, **everywhere)
        return self._network

    @property
    def shared_cluster(self) -> str:
        if self._cluster is None:
            self._cluster = self.cluster(self.shared_network, version="1.34")
            self.code("eks", "CreateAddon", clusterName=self._cluster, addonName="vpc-cni")
        return self._cluster

    def at_rest(self, cluster: str) -> None:
        until(f"{cluster} is at rest", lambda: self.cluster_status(cluster) in ("ACTIVE", "gone"))


Play = Callable[[Peer], Any]


@dataclasses.dataclass(frozen=True)
class MotoDiffers:
    """What moto makes of it instead, and why AWS does not."""

    observed: Any
    why: str


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One row of the table."""

    name: str
    covers: tuple[Operation, ...]
    play: Play
    wanted: Any
    moto: MotoDiffers | None = None


class Table:
    """Behaviours, declared by decorating their plays."""

    def __init__(self) -> None:
        self.rows: list[Behaviour] = []

    def behaviour(self, covers: str, wanted: Any, moto: MotoDiffers | None = None) -> Callable[[Play], Play]:
        """`covers` names operations as `service:Operation`, separated by blanks."""

        def declare(play: Play) -> Play:
            operations = tuple((one.split(":")[0], one.split(":")[1]) for one in covers.split())
            name = (play.__doc__ or play.__name__).strip().splitlines()[0].rstrip(".")
            self.rows.append(Behaviour(name, operations, play, wanted, moto))
            return play

        return declare


NOT_PLAYED = "could not be played"


def observe(peer: Peer, row: Behaviour) -> Any:
    """What a peer makes of it. A play that breaks is an observation too."""
    before = len(peer.aws.outcomes)
    try:
        found = row.play(peer)
    except Exception as error:  # noqa: BLE001 - one that cannot be played must not hide the others
        found = f"{NOT_PLAYED}: {type(error).__name__}: {error}"
    called = {outcome.operation for outcome in peer.aws.outcomes[before:]}
    missing = set(row.covers) - called
    if missing and not str(found).startswith(NOT_PLAYED):
        raise AssertionError(f"{row.name} claims to cover what it does not call: {missing}")
    return found


def compare(report: Report, rows: Iterable[Behaviour], sandbox: Peer, moto: Peer) -> set[Operation]:
    """Plays every row on both; answers the operations covered."""
    covered: set[Operation] = set()
    for row in rows:
        found = observe(sandbox, row)
        if report.check(f"sandbox: {row.name}", row.wanted, found):
            covered |= set(row.covers)
        _judge_moto(report, row, observe(moto, row))
    return covered


def _judge_moto(report: Report, row: Behaviour, found: Any) -> None:
    what = f"moto: {row.name}"
    if row.moto is None:
        report.check(what, row.wanted, found)
        return
    same = (
        str(found).startswith(row.moto.observed) if isinstance(row.moto.observed, str) else found == row.moto.observed
    )
    if found == row.wanted:
        report.fail(what, f"the listed difference is gone, both say {found!r}; take it off the table")
    elif same:
        report.differs(what, "AWS, and with it the sandbox,", f"moto says {found!r}: {row.moto.why}")
    else:
        report.fail(what, f"differs otherwise than listed: wanted {row.moto.observed!r}, found {found!r}")
