//! Address ranges as the runbook gives them: well-formed, inside of each other where they must be, and large enough for
//! what will run in them. Arithmetic only; what exists in the account is checked elsewhere.

use platflow_steps::preflight::{Check, Family, Finding, Range, Subject, SubjectStep};

static MALFORMED: Check = Check::of_request("network.malformed", Family::Network, "Every range is an IPv4 range");
static HOST_BITS: Check =
    Check::of_request("network.host-bits", Family::Network, "Ranges are written with their first address");
static VPC_SIZE: Check = Check::of_request("network.vpc-size", Family::Network, "The VPC is between a /28 and a /16");
static SUBNET_SIZE: Check =
    Check::of_request("network.subnet-size", Family::Network, "Subnets are between a /28 and a /16");
static OUTSIDE: Check = Check::of_request("network.subnet-outside", Family::Network, "Subnets lie inside their VPC");
static OVERLAP: Check = Check::of_request("network.subnets-overlap", Family::Network, "No two subnets overlap");
static PUBLIC: Check = Check::of_request(
    "network.public-range",
    Family::Network,
    "The VPC takes addresses that are nobody's on the Internet",
);
static DOCKER: Check =
    Check::of_request("network.docker-bridge", Family::Network, "Nothing lies on the addresses of container bridges");
static SERVICES: Check = Check::of_request(
    "network.service-range",
    Family::Network,
    "The range of services is private, of a size that EKS takes, and outside the VPC",
);
static PAIRS: Check =
    Check::of_request("network.subnet-per-zone", Family::Network, "There is a public subnet for every private one");
static EKS: Check = Check::of_request(
    "network.cluster-addresses",
    Family::Network,
    "Subnets of the control plane have addresses for it",
);
static NODES: Check = Check::of_request(
    "network.node-addresses",
    Family::Network,
    "Private subnets have addresses for the nodes and their pods",
);

pub(super) static CHECKS: &[&Check] = &[
    &MALFORMED,
    &HOST_BITS,
    &VPC_SIZE,
    &SUBNET_SIZE,
    &OUTSIDE,
    &OVERLAP,
    &PUBLIC,
    &DOCKER,
    &SERVICES,
    &PAIRS,
    &EKS,
    &NODES,
];

/// Free addresses that EKS wants in a subnet, and those that it recommends
/// (<https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html>).
const LEAST: u64 = 6;
const RECOMMENDED: u64 = 16;
/// What a node takes with the network plugin's defaults: an interface in use and a warm one, about ten addresses each.
const PER_NODE: u64 = 20;

struct Known<'a> {
    step: &'a SubjectStep,
    range: Range,
}

fn ranges<'a>(subject: &'a Subject, kind: &'a str, pointer: &'a str, found: &mut Vec<Finding>) -> Vec<Known<'a>> {
    let mut known = Vec::new();
    for (step, text) in subject.named(kind, pointer) {
        match text.parse::<Range>() {
            Ok(range) => {
                if !range.is_canonical() {
                    found.push(HOST_BITS.blocker(
                        format!("{}: {text} begins inside of {}", step.name, range.canonical()),
                        "AWS writes it as the latter: every later run would see a difference, and want to replace it",
                        format!("write {}", range.canonical()),
                    ));
                }
                known.push(Known { step, range });
            }
            Err(error) => {
                found.push(MALFORMED.blocker(format!("{}: {error}", step.name), "AWS refuses it", "correct the range"))
            }
        }
    }
    known
}

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    let vpcs = ranges(subject, "aws.vpc", "/cidr", &mut found);
    let subnets = ranges(subject, "aws.subnet", "/cidr", &mut found);
    let services = ranges(subject, "aws.eks_cluster", "/service_cidr", &mut found);
    for Known { step, range } in &vpcs {
        found.extend(of_vpc(step, *range));
    }
    for Known { step, range } in &subnets {
        if !(16..=28).contains(&range.bits()) {
            found.push(SUBNET_SIZE.blocker(
                format!("{} is {range}", step.name),
                "AWS makes subnets from /28 to /16",
                "choose another size",
            ));
        }
        // One VPC is the rule; with several it is not known here which is whose.
        if let [vpc] = vpcs.as_slice()
            && !vpc.range.contains(*range)
        {
            found.push(OUTSIDE.blocker(
                format!("{} is {range}, the VPC is {}", step.name, vpc.range),
                "AWS refuses the subnet",
                "choose subnets inside of vpc_cidr",
            ));
        }
    }
    if vpcs.len() < 2 {
        found.extend(overlaps(&subnets));
    }
    found.extend(of_services(&services, &vpcs));
    found.extend(room(subject, &subnets));
    found
}

fn of_vpc(step: &SubjectStep, range: Range) -> Vec<Finding> {
    let mut found = Vec::new();
    if !(16..=28).contains(&range.bits()) {
        found.push(VPC_SIZE.blocker(
            format!("{} is {range}", step.name),
            "AWS makes VPCs from /28 to /16",
            "choose another size",
        ));
    }
    if !range.is_private() {
        found.push(PUBLIC.warning(
            format!("{} is {range}, which belongs to somebody on the Internet", step.name),
            "whoever has these addresses cannot be reached from inside",
            "choose a range in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10",
        ));
    }
    if "172.17.0.0/16".parse::<Range>().is_ok_and(|bridge| bridge.overlaps(range)) {
        found.push(DOCKER.warning(
            format!("{} is {range}, on the addresses of Docker's bridge (172.17.0.0/16)", step.name),
            "machines that run Docker (build agents, jump hosts) cannot reach what lies there",
            "choose another range",
        ));
    }
    found
}

fn overlaps(subnets: &[Known<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, one) in subnets.iter().enumerate() {
        for other in subnets.iter().skip(at + 1).filter(|other| one.range.overlaps(other.range)) {
            found.push(OVERLAP.blocker(
                format!("{} is {}, {} is {}", one.step.name, one.range, other.step.name, other.range),
                "AWS refuses the second one (InvalidSubnet.Conflict)",
                "choose ranges that have no address in common",
            ));
        }
    }
    found
}

fn of_services(services: &[Known<'_>], vpcs: &[Known<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for Known { step, range } in services {
        let clash = vpcs.iter().find(|vpc| vpc.range.overlaps(*range));
        let why = if let Some(vpc) = clash {
            format!("it overlaps the VPC ({})", vpc.range)
        } else if !range.is_private() {
            "it is not private".to_owned()
        } else if !(12..=24).contains(&range.bits()) {
            "EKS takes a /24 to a /12".to_owned()
        } else {
            continue;
        };
        found.push(SERVICES.blocker(
            format!("{}: the range of services is {range}: {why}", step.name),
            "EKS refuses the cluster, or services hide what has their addresses; it can never be changed",
            "choose another service_cidr, such as 172.20.0.0/16",
        ));
    }
    found
}

/// Whether what will run there finds addresses.
fn room(subject: &Subject, subnets: &[Known<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    let (public, private): (Vec<&Known<'_>>, Vec<&Known<'_>>) = subnets.iter().partition(|one| one.step.is("/public"));
    if !public.is_empty() && public.len() != private.len() {
        found.push(PAIRS.blocker(
            format!("there are {} public and {} private subnets", public.len(), private.len()),
            "a private subnet has no gateway in its zone, or the zones of the surplus ones do not exist",
            "give as many public_cidrs as private_cidrs",
        ));
    }
    if !subject.has("aws.eks_cluster") {
        return found;
    }
    // Where all are alike, the cluster takes them all.
    let taken = if private.is_empty() { &public } else { &private };
    for Known { step, range } in taken {
        let usable = range.usable();
        let evidence = format!("{} is {range}: {usable} addresses", step.name);
        if usable < LEAST {
            found.push(EKS.blocker(
                evidence,
                "EKS wants 6 free addresses in each subnet of the control plane",
                "choose a larger range",
            ));
        } else if usable < RECOMMENDED {
            found.push(EKS.warning(
                evidence,
                "EKS recommends 16 free ones; an upgrade fails without 5",
                "choose a larger range",
            ));
        }
    }
    let usable: u64 = taken.iter().map(|one| one.range.usable()).sum();
    let pools = subject.pools();
    let nodes: u64 = pools.iter().map(platflow_steps::preflight::Pool::desired).sum();
    let most: u64 = pools.iter().map(platflow_steps::preflight::Pool::most).sum();
    let remedy = "choose larger private_cidrs: they cannot be changed later";
    if !taken.is_empty() && nodes * PER_NODE > usable {
        let evidence = format!("{nodes} nodes take about {} addresses, the subnets have {usable}", nodes * PER_NODE);
        found.push(NODES.blocker(evidence, "nodes do not start, or their pods get no address", remedy));
    } else if !taken.is_empty() && most * PER_NODE > usable {
        let evidence =
            format!("{most} nodes at the most take about {} addresses, the subnets have {usable}", most * PER_NODE);
        found.push(NODES.warning(evidence, "pools stop growing before they reach their maximum", remedy));
    }
    found
}
