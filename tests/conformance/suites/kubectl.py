"""The real kubectl and helm against the cluster of a private sandbox: what people type, its output and its exit codes."""

import json
import os
import pathlib
import subprocess
import time

import boto3
from harness import tools
from harness.report import Report
from harness.sandbox import ROOT, Sandbox

RUNBOOK = ROOT / "tests" / "fixtures" / "small-cluster.yaml"
CHART = ROOT / "tests" / "conformance" / "charts" / "web"

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "example.com/web:1.0"}]},
        },
    },
}
SETTINGS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings", "namespace": "shop"},
    "data": {"colour": "blue"},
}


class Cluster:
    """kubectl with the kubeconfig that platflow prints."""

    def __init__(self, sandbox: Sandbox, folder: pathlib.Path):
        self.config = folder / "kubeconfig.json"
        self.config.write_text(sandbox.platflow("kubeconfig", "small").stdout)
        self.environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}
        self.environment["PLATFLOW_STATE"] = str(folder / "state")
        self.ran = 0

    def run(self, *arguments: str, body: object = None) -> subprocess.CompletedProcess[str]:
        """One command; a body goes to its stdin as JSON or as it is."""
        self.ran += 1
        command = [str(tools.kubectl()), "--kubeconfig", str(self.config), "--request-timeout=75s", *arguments]
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        return subprocess.run(
            command, input=text, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def out(self, *arguments: str, body: object = None) -> str:
        """What a command prints that must succeed."""
        done = self.run(*arguments, body=body)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def get(self, *arguments: str) -> dict:
        return json.loads(self.out("get", *arguments, "-o", "json"))


def nodes(sandbox: Sandbox) -> None:
    """Two machines and the network add-on, by the ordinary AWS client: the runbook builds a control plane alone."""
    os.environ.update(sandbox.environment)
    eks, iam, ec2 = boto3.client("eks"), boto3.client("iam"), boto3.client("ec2")
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
    role = iam.create_role(RoleName="machines", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    for policy in ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"):
        iam.attach_role_policy(RoleName="machines", PolicyArn=f"arn:aws:iam::aws:policy/{policy}")
    network = eks.describe_cluster(name="small")["cluster"]["resourcesVpcConfig"]
    subnets, vpc = network["subnetIds"], network["vpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    [table] = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    for subnet in subnets:
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    eks.create_addon(clusterName="small", addonName="vpc-cni")
    scaling = {"minSize": 2, "maxSize": 2, "desiredSize": 2}
    group = {"clusterName": "small", "nodegroupName": "machines", "subnets": subnets, "nodeRole": role["Arn"]}
    for _ in range(600):
        try:
            eks.create_nodegroup(**group, scalingConfig=scaling, instanceTypes=["m6i.large"])
            break
        except eks.exceptions.InvalidParameterException:
            time.sleep(0.1)  # a fresh role is not known everywhere at once
    eks.get_waiter("nodegroup_active").wait(
        clusterName="small", nodegroupName="machines", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )


def applying(report: Report, cluster: Cluster) -> None:
    """Namespaces, client-side and server-side apply, conflicts, dry runs, diff."""
    report.check("create namespace", "namespace/shop created", cluster.out("create", "namespace", "shop"))
    again = cluster.run("create", "namespace", "shop")
    report.true("create it again", "(AlreadyExists)" in again.stderr and again.returncode == 1, again.stderr)
    report.check("apply", "configmap/settings created", cluster.out("apply", "-f", "-", body=SETTINGS))
    report.check("apply again", "configmap/settings unchanged", cluster.out("apply", "-f", "-", body=SETTINGS))
    red = {**SETTINGS, "data": {"colour": "red"}}
    report.check("diff exits 1", 1, cluster.run("diff", "-f", "-", body=red).returncode)
    report.check("diff of the same exits 0", 0, cluster.run("diff", "-f", "-", body=SETTINGS).returncode)
    dry = cluster.out("apply", "--dry-run=server", "-f", "-", body=red)
    report.check("server dry run", "configmap/settings configured (server dry run)", dry)
    report.check("nothing came of it", "blue", cluster.get("-n", "shop", "configmap", "settings")["data"]["colour"])
    report.check("apply a change", "configmap/settings configured", cluster.out("apply", "-f", "-", body=red))

    one = {**SETTINGS, "metadata": {"name": "owned", "namespace": "shop"}}
    first = cluster.out("apply", "--server-side", "--field-manager=alpha", "-f", "-", body=one)
    report.check("server-side apply", "configmap/owned serverside-applied", first)
    two = {**one, "data": {"colour": "green"}}
    conflict = cluster.run("apply", "--server-side", "--field-manager=beta", "-f", "-", body=two)
    told = 'conflict with "alpha"' in conflict.stderr and ".data.colour" in conflict.stderr
    report.true("a conflict names owner and field", conflict.returncode == 1 and told, conflict.stderr)
    forced = cluster.out("apply", "--server-side", "--force-conflicts", "--field-manager=beta", "-f", "-", body=two)
    report.check("forced", "configmap/owned serverside-applied", forced)
    owners = {
        entry["manager"]: entry["operation"]
        for entry in cluster.get("-n", "shop", "configmap", "owned", "--show-managed-fields")["metadata"]["managedFields"]
    }
    report.check("who owns it now", {"beta": "Apply"}, owners)


def rolling_out(report: Report, cluster: Cluster) -> None:
    """A Deployment: apply, wait, roll-out, tables, scale, new image, describe."""
    report.check("apply a Deployment", "deployment.apps/web created", cluster.out("apply", "-f", "-", body=DEPLOYMENT))
    shop = ("-n", "shop")
    rolled = cluster.out(*shop, "rollout", "status", "deployment/web", "--timeout=60s")
    report.true("rollout status", rolled.endswith('deployment "web" successfully rolled out'), rolled)
    waited = cluster.out(*shop, "wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
    report.check("wait", "deployment.apps/web condition met", waited)
    head, row = cluster.out(*shop, "get", "deployments").splitlines()
    report.check("columns of Deployments", ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"], head.split())
    report.check("row of a Deployment", ["web", "2/2", "2", "2"], row.split()[:4])
    pods = cluster.out(*shop, "get", "pods", "-l", "app=web").splitlines()
    report.check("columns of pods", ["NAME", "READY", "STATUS", "RESTARTS", "AGE"], pods[0].split())
    report.check("rows of pods", [["1/1", "Running", "0"]] * 2, [row.split()[1:4] for row in pods[1:]])
    wide = cluster.out(*shop, "get", "pods", "-o", "wide").splitlines()[0].split()
    report.check("wide columns", ["IP", "NODE"], wide[5:7])
    running = cluster.get(*shop, "pods", "--field-selector", "status.phase=Running")["items"]
    report.check("field selector", 2, len(running))
    none = cluster.run(*shop, "get", "pods", "-l", "app=nobody")
    report.true("nothing selected", none.returncode == 0 and "No resources found" in none.stderr, none.stderr)
    names = cluster.out(*shop, "get", "all", "-o", "name").split()
    report.true("get all", {"deployment.apps/web"} < set(names) and len(names) == 4, names)
    scaled = cluster.out(*shop, "scale", "deployment/web", "--replicas=3")
    report.check("scale", "deployment.apps/web scaled", scaled)
    cluster.out(*shop, "rollout", "status", "deployment/web", "--timeout=60s")
    report.check("scaled up", 3, cluster.get(*shop, "deployment", "web")["status"]["readyReplicas"])
    cluster.out(*shop, "set", "image", "deployment/web", "main=example.com/web:2.0")
    cluster.out(*shop, "rollout", "status", "deployment/web", "--timeout=60s")
    images = {pod["spec"]["containers"][0]["image"] for pod in cluster.get(*shop, "pods", "-l", "app=web")["items"]
              if "deletionTimestamp" not in pod["metadata"]}
    report.check("a new image everywhere", {"example.com/web:2.0"}, images)
    history = cluster.out(*shop, "rollout", "history", "deployment/web").split()
    report.true("two revisions", history[-4] == "1" and history[-2] == "2", history)
    described = cluster.out(*shop, "describe", "deployment", "web")
    report.true("describe", "3 desired | 3 updated | 3 total | 3 available | 0 unavailable" in described, described)
    report.true("describe a pod", "Status:           Running" in cluster.out(*shop, "describe", "pods"))


def versions(report: Report, cluster: Cluster) -> None:
    """An autoscaler in both of its versions; a large object, which kubectl takes compressed."""
    shop = ("-n", "shop")
    made = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "shop"}}
    target = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 3}
    body = {**made, "spec": {**target, "targetCPUUtilizationPercentage": 80}}
    told = cluster.out("apply", "-f", "-", body=body)
    report.check("apply an autoscaler of v1", "horizontalpodautoscaler.autoscaling/web created", told)
    newer = cluster.get(*shop, "hpa", "web")
    report.check("get it: v2, as kubectl prefers", "autoscaling/v2", newer["apiVersion"])
    report.check("v2 says it in its words", 80, newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"])
    older = cluster.get(*shop, "horizontalpodautoscalers.v1.autoscaling", "web")
    report.check("v1 says it in its own", 80, older["spec"].get("targetCPUUtilizationPercentage"))
    patch = '{"spec": {"targetCPUUtilizationPercentage": 60}}'
    cluster.out(*shop, "patch", "horizontalpodautoscalers.v1.autoscaling", "web", "--type=merge", "-p", patch)
    newer = cluster.get(*shop, "hpa", "web")
    report.check("patched by v1, read by v2", 60, newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"])
    again = cluster.out("apply", "-f", "-", body={**made, "spec": {**target, "targetCPUUtilizationPercentage": 60}})
    report.check("apply what it is", "horizontalpodautoscaler.autoscaling/web configured", again)
    cluster.out(*shop, "delete", "hpa", "web")
    # Applied by the server, for kubectl keeps what it applies itself a second time, in an annotation.
    large = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large", "namespace": "shop"}, "data": {"x": "y" * 200_000}}
    cluster.out("apply", "--server-side", "-f", "-", body=large)
    report.check("a large object comes whole", large["data"], cluster.get(*shop, "configmap", "large")["data"])
    cluster.out(*shop, "delete", "configmap", "large")


def changing(report: Report, cluster: Cluster) -> None:
    """Labels, annotations, three kinds of patch, quotas, deletion of objects."""
    shop = ("-n", "shop")
    done = cluster.out(*shop, "label", "configmap", "settings", "team=blue")
    report.check("label", "configmap/settings labeled", done)
    taken = cluster.run(*shop, "label", "configmap", "settings", "team=red")
    report.true("label it otherwise", taken.returncode == 1 and "already has a value" in taken.stderr, taken.stderr)
    done = cluster.out(*shop, "annotate", "configmap", "settings", "note=x")
    report.check("annotate", "configmap/settings annotated", done)
    patches = {
        "merge": ("configmap", "settings", '{"data": {"size": "1"}}'),
        "json": ("configmap", "settings", '[{"op": "replace", "path": "/data/size", "value": "2"}]'),
        "strategic": (
            "deployment",
            "web",
            '{"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}}',
        ),
    }
    for kind, (resource, name, patch) in patches.items():
        done = cluster.out(*shop, "patch", resource, name, f"--type={kind}", "-p", patch)
        report.true(f"patch {kind}", done.endswith("patched"), done)
    report.check("patched", "2", cluster.get(*shop, "configmap", "settings")["data"]["size"])
    containers = cluster.get(*shop, "deployment", "web")["spec"]["template"]["spec"]["containers"]
    report.check("merged by name", ["example.com/web:2.0"], [container["image"] for container in containers])
    missing = cluster.run(*shop, "patch", "configmap", "absent", "-p", "{}")
    report.true("patch what is not there", "(NotFound)" in missing.stderr, missing.stderr)

    quota = cluster.out(*shop, "create", "quota", "few", "--hard=pods=20,configmaps=20")
    report.check("create quota", "resourcequota/few created", quota)
    beyond = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "shop"}}
    cluster.out("apply", "-f", "-", body={**beyond, "spec": {"hard": {"count/secrets": "0"}}})
    for _ in range(100):
        if "used" in cluster.get(*shop, "quota", "none").get("status", {}):
            break
    refused = cluster.run(*shop, "create", "secret", "generic", "one-too-many")
    report.true("beyond a quota", refused.returncode == 1 and "exceeded quota: none" in refused.stderr, refused.stderr)
    account = cluster.out(*shop, "create", "serviceaccount", "robot")
    report.check("create serviceaccount", "serviceaccount/robot created", account)
    report.check("create token", 3, len(cluster.out(*shop, "create", "token", "robot").split(".")))
    done = cluster.out(*shop, "delete", "configmap", "owned")
    report.true("delete", done.startswith('configmap "owned" deleted'), done)
    gone = cluster.run(*shop, "delete", "configmap", "owned")
    report.true("delete it again", "(NotFound)" in gone.stderr and gone.returncode == 1, gone.stderr)
    report.check("or not", 0, cluster.run(*shop, "delete", "configmap", "owned", "--ignore-not-found").returncode)


def asking(report: Report, cluster: Cluster) -> None:
    """Who may what, what there is, and refusals."""
    report.check("can-i", "yes", cluster.out("auth", "can-i", "create", "deployments", "-n", "shop"))
    robot = "--as=system:serviceaccount:shop:robot"
    cluster.out("-n", "shop", "create", "role", "reader", "--verb=get,list", "--resource=pods")
    cluster.out("-n", "shop", "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=shop:robot")
    report.true("who am I", "Username" in cluster.out("auth", "whoami"))
    resources = cluster.out("api-resources", "-o", "name").split()
    wanted = {"pods", "namespaces", "deployments.apps", "networkpolicies.networking.k8s.io", "jobs.batch"}
    report.true("api-resources", wanted <= set(resources), wanted - set(resources))
    report.true("api-versions", {"v1", "apps/v1", "batch/v1"} <= set(cluster.out("api-versions").split()))
    report.true("version", "Server Version: v1.36" in cluster.out("version"))
    unknown = cluster.run("get", "nonesuch")
    report.true("an unknown kind", "doesn't have a resource type" in unknown.stderr, unknown.stderr)
    report.true("cluster-info", "control plane" in cluster.out("cluster-info"))
    ready = [row.split()[1] for row in cluster.out("get", "nodes", "--no-headers").splitlines()]
    report.check("nodes", ["Ready", "Ready"], ready)
    typo = {**SETTINGS, "metadata": {"name": "typo", "namespace": "shop"}, "daat": {"a": "1"}}
    refused = cluster.run("apply", "--server-side", "-f", "-", body=typo)
    report.true("a field that there is not", refused.returncode == 1 and "daat" in refused.stderr, refused.stderr)
    bad = cluster.run("create", "namespace", "Not_A_Name")
    report.true("a bad name", bad.returncode == 1 and "RFC 1123" in bad.stderr, bad.stderr)
    del robot


def charting(report: Report, cluster: Cluster) -> None:
    """helm renders, kubectl applies; twice, and the second time changes nothing."""
    try:
        helm = tools.helm()
    except (subprocess.CalledProcessError, StopIteration, LookupError) as error:
        report.skip("helm", str(error))
        return
    command = [str(helm), "template", "market", str(CHART), "--namespace", "shop", "--set", "replicas=2"]
    rendered = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=True).stdout
    apply = ("-n", "shop", "apply", "--server-side", "-f", "-")
    applied = cluster.out(*apply, body=rendered).splitlines()
    report.check("helm template, apply", 6, sum(line.endswith("serverside-applied") for line in applied))
    cluster.out("-n", "shop", "rollout", "status", "deployment/market", "--timeout=60s")
    kinds = ("serviceaccount", "configmap", "service", "networkpolicy", "pdb")
    versions = [cluster.get("-n", "shop", kind, "market")["metadata"]["resourceVersion"] for kind in kinds]
    cluster.out(*apply, body=rendered)
    again = [cluster.get("-n", "shop", kind, "market")["metadata"]["resourceVersion"] for kind in kinds]
    report.check("apply the chart again", versions[:-1], again[:-1])
    report.check("pods of the chart", 2, cluster.get("-n", "shop", "deployment", "market")["status"]["readyReplicas"])


def leaving(report: Report, cluster: Cluster) -> None:
    """A namespace goes with all that is in it."""
    done = cluster.out("delete", "namespace", "shop", "--timeout=90s")
    report.true("delete namespace", done.startswith('namespace "shop" deleted'), done)
    gone = cluster.run("get", "namespace", "shop")
    report.true("it is gone", gone.returncode == 1 and "(NotFound)" in gone.stderr, gone.stderr)
    left = cluster.run("get", "pods", "-n", "shop")
    report.true("and its pods", "No resources found" in left.stderr, left.stderr)


def run(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox:
        sandbox.platflow("run", str(RUNBOOK), "--sandbox")
        nodes(sandbox)
        cluster = Cluster(sandbox, folder)
        parts = (applying, rolling_out, versions, changing, asking, charting, leaving)
        for part in parts:
            report.case(part.__name__, lambda part=part: part(report, cluster))
        report.cover("kubectl commands run, all of them against the sandbox", cluster.ran, cluster.ran)
