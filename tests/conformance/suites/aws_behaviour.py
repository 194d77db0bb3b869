"""AWS, behaviour: duplicates, conflicts, dependencies, tokens, pages, filters, states: the sandbox beside moto.

Each row says what AWS does, by its API reference or by what its clients rely on; the sandbox has to do the same. Where
moto does something else, the row says what, and why that is not AWS; a listed difference that is gone is a failure. The
calls about what is not there, which aws_shapes makes to the sandbox, are made to both here.
"""

import pathlib
from collections.abc import Callable

from harness.behaviour import Behaviour, Peer, compare
from harness.operations import called_by_steps, mutates
from harness.report import Report
from harness.sandbox import Sandbox
from harness.servers import moto
from tables import ec2, ec2_more, eks, others, paging
from tables.nothing_there import MOTO_DIFFERS, NOTHING_THERE

# What moto deletes although it is in use comes last.
ROWS: list[Behaviour] = [*ec2.TABLE.rows, *others.TABLE.rows, *ec2_more.TABLE.rows, *eks.TABLE.rows,
                         *paging.TABLE.rows]  # fmt: skip

LEAKS = {
    "volume": "csi_volume",
    "snapshot": "csi_snapshot",
    "interface": "cni_interface",
    "balancer": "ingress_load_balancer",
    "targets": "target_group",
    "classic balancer": "service_load_balancer",
    "scaling group": "node_group_remains",
}


def planted_in(sandbox: Sandbox) -> Callable[[Peer, str], str]:
    """In the sandbox, what controllers leave is put there by its own command, beside a cluster."""

    def plant(peer: Peer, what: str) -> str:
        assert peer.shared_cluster
        before = {resource["id"] for resource in sandbox.world()}
        sandbox.platflow("sandbox", "leak", LEAKS[what])
        made = [resource for resource in sandbox.world() if resource["id"] not in before]
        kinds = {
            "volume": "ec2:volume",
            "snapshot": "ec2:snapshot",
            "interface": "ec2:network-interface",
            "balancer": "elbv2:load-balancer",
            "targets": "elbv2:target-group",
            "classic balancer": "elb:load-balancer",
            "scaling group": "autoscaling:group",
        }
        return next(resource["id"] for resource in made if resource["type"] == kinds[what])

    return plant


def plant_by_calls(peer: Peer, what: str) -> str:
    """Elsewhere it is made by calls."""
    network, aws = peer.shared_network, peer.aws
    name = peer.name("planted")
    if what in ("volume", "snapshot"):
        volume = aws.must("ec2", "CreateVolume", AvailabilityZone="us-west-2a", Size=1)["VolumeId"]
        return volume if what == "volume" else aws.must("ec2", "CreateSnapshot", VolumeId=volume)["SnapshotId"]
    if what == "interface":
        subnet = peer.subnet(network.vpc, "10.0.50.0/24", peer.zones()[0])
        made = aws.must("ec2", "CreateNetworkInterface", SubnetId=subnet)
        return made["NetworkInterface"]["NetworkInterfaceId"]
    if what == "balancer":
        made = aws.must("elbv2", "CreateLoadBalancer", Name=name, Subnets=network.subnets)
        return made["LoadBalancers"][0]["LoadBalancerArn"]
    if what == "targets":
        made = aws.must("elbv2", "CreateTargetGroup", Name=name, Protocol="TCP", Port=80, VpcId=network.vpc)
        return made["TargetGroups"][0]["TargetGroupArn"]
    if what == "classic balancer":
        listener = {"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 80}
        aws.must("elb", "CreateLoadBalancer", LoadBalancerName=name, Listeners=[listener], Subnets=network.subnets)
        return name
    image = aws.must("ec2", "DescribeImages")["Images"][0]["ImageId"]
    aws.must("autoscaling", "CreateLaunchConfiguration", LaunchConfigurationName=name, ImageId=image,
             InstanceType="t3.medium")  # fmt: skip
    aws.must("autoscaling", "CreateAutoScalingGroup", AutoScalingGroupName=name, LaunchConfigurationName=name,
             MinSize=0, MaxSize=0, VPCZoneIdentifier=",".join(network.subnets))  # fmt: skip
    return name


def nothing_there(report: Report, ours: Peer, theirs: Peer) -> int:
    """Calls about what is not there; how many of them moto answers as AWS."""
    same = 0
    for wanted, service, operation, parameters in NOTHING_THERE:
        what = f"{service} {operation} about what is not there ({', '.join(parameters)})"
        report.check(f"sandbox: {what}", wanted, ours.code(service, operation, **parameters))
        found = theirs.code(service, operation, **parameters)
        listed, why = MOTO_DIFFERS.get((service, operation, wanted), (None, ""))
        if listed is None:
            same += report.check(f"moto: {what}", wanted, found)
        elif found == wanted:
            report.fail(f"moto: {what}", f"the listed difference is gone, both say {found}; take it off the table")
        elif report.check(f"moto: {what}: as listed", listed, found):
            report.agreed -= 1
            report.differs(f"moto: {what}", f"AWS, and with it the sandbox ({wanted}),", f"moto says {found}: {why}")
    return same


def run(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox, moto(folder) as server:
        ours = Peer("sandbox", sandbox.environment["AWS_ENDPOINT_URL"], planted_in(sandbox))
        theirs = Peer("moto", server.url, plant_by_calls)
        # Before there is anything: what is not there is not there by itself.
        same = nothing_there(report, ours, theirs)
        covered = compare(report, ROWS, ours, theirs)
    wanted = {operation for operation in called_by_steps() if mutates(operation)}
    report.check("mutating operations of steps without a behaviour", [], sorted(wanted - covered))
    report.cover("mutating operations used by steps, covered by behaviour", len(wanted & covered), len(wanted))
    report.cover("calls about what is not there in which moto does as AWS", same, len(NOTHING_THERE))
    report.cover("behaviours in which moto does as AWS", sum(row.moto is None for row in ROWS), len(ROWS))
