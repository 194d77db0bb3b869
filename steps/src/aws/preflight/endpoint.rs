//! Whether the services answer, under names that resolve, and whether the API server could be reached from here.

use super::super::failure::{AwsFailure, Reach};
use super::super::lookups::contains;
use super::super::signed::{Service, parameter};
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding, SubjectStep};
use futures::future::join_all;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

static ANSWER: Check =
    Check::of_world("endpoint.services", Family::Endpoint, "Every service that the run calls answers");
static RESOLVE: Check = Check::of_world("endpoint.dns", Family::Endpoint, "The names of the services resolve");
static LOOKING: Check =
    Check::of_world("permission.looking", Family::Permission, "The caller may look at every service");
static PRIVATE: Check =
    Check::of_request("endpoint.private", Family::Endpoint, "A private API server is built from inside its VPC");
static OUTSIDE: Check = Check::of_request(
    "endpoint.caller-outside",
    Family::Endpoint,
    "This machine is among those that may reach the API server",
);
static OPEN: Check = Check::of_request("endpoint.open", Family::Endpoint, "The API server is not open to everybody");
static RESERVED: Check =
    Check::of_request("endpoint.reserved", Family::Endpoint, "Only public addresses are let in from outside");
static ADDRESS: Check =
    Check::of_world("endpoint.own-address", Family::Endpoint, "This machine's public address can be asked for");
static NONE: Check = Check::of_request("endpoint.none", Family::Endpoint, "The API server has an endpoint");

pub(super) static SERVICES: &[&Check] = &[&ANSWER, &RESOLVE, &LOOKING];
pub(super) static ACCESS: &[&Check] = &[&ADDRESS, &PRIVATE, &OUTSIDE, &OPEN, &RESERVED, &NONE];
pub(super) static CHECKS: &[&Check] =
    &[&ANSWER, &RESOLVE, &LOOKING, &PRIVATE, &OUTSIDE, &OPEN, &RESERVED, &ADDRESS, &NONE];

/// A cheap look at each service behind the signed client.
static LOOKS: [(Service, &str, &str); 8] = [
    (Service::Iam, "iam", "ListRoles"),
    (Service::Elb, "elasticloadbalancing", "DescribeLoadBalancers"),
    (Service::AutoScaling, "autoscaling", "DescribeAutoScalingGroups"),
    (Service::Kms, "kms", "ListAliases"),
    (Service::Logs, "logs", "DescribeLogGroups"),
    (Service::Tagging, "tagging", "GetResources"),
    (Service::Ec2, "ec2", "DescribeRegions"),
    (Service::Quotas, "servicequotas", "GetServiceQuota"),
];

/// The waits before a service that does not answer is asked again.
const PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(750), Duration::from_secs(2)];

#[expect(
    clippy::disallowed_methods,
    reason = "a check has no run and no clock of one; what it waits for is the network"
)]
async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}

async fn ask(account: &Account<'_>, service: Service, action: &str) -> Result<(), AwsFailure> {
    let signed = &account.aws.signed;
    match service {
        Service::Kms => signed.ask_json(service, action, &json!({"Limit": 1})).await.map(drop),
        Service::Logs => signed.ask_json(service, action, &json!({"limit": 1})).await.map(drop),
        Service::Tagging => signed.ask_json(service, action, &json!({"ResourcesPerPage": 1})).await.map(drop),
        Service::Quotas => {
            let vpcs = json!({"ServiceCode": "vpc", "QuotaCode": "L-F678F1CE"});
            signed.ask_json(service, action, &vpcs).await.map(drop)
        }
        Service::Iam => signed.ask::<IgnoredAny>(service, action, &[parameter("MaxItems", "1")]).await.map(drop),
        Service::Ec2 => signed.ask::<IgnoredAny>(service, action, &[]).await.map(drop),
        _ => signed.ask::<IgnoredAny>(service, action, &[]).await.map(drop),
    }
}

pub(super) async fn services(account: &Account<'_>) -> Looked {
    let asked = join_all(LOOKS.iter().map(|(service, name, action)| async move {
        let mut answer = ask(account, *service, action).await;
        // Neither one lost reply nor a moment's absence is a service that is away.
        for pause in PAUSES {
            if answer.as_ref().err().is_none_or(|failure| failure.reach == Reach::Answered) {
                break;
            }
            pause_for(pause).await;
            answer = ask(account, *service, action).await;
        }
        (*service, *name, *action, answer)
    }));
    let mut found = Vec::new();
    let mut refused = Vec::new();
    for (service, name, action, answer) in asked.await {
        let Err(failure) = answer else { continue };
        let address = account.aws.signed.address(service).to_owned();
        match failure.reach {
            Reach::Answered
                if ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"]
                    .contains(&failure.code.as_str()) =>
            {
                refused.push(format!("{name}:{action}"));
            }
            Reach::Answered => {}
            Reach::NotSent | Reach::Unanswered => found.push(unreachable(name, &address, &failure).await),
        }
    }
    if !refused.is_empty() {
        found.push(LOOKING.warning(
            format!("the caller may not {}", refused.join(", ")),
            "what is there cannot be seen: leftovers and takers of names stay unnoticed, a rollback proves less",
            format!("allow these actions to the caller: {}", refused.join(", ")),
        ));
    }
    Ok(found)
}

async fn unreachable(name: &str, address: &str, failure: &AwsFailure) -> Finding {
    let url = url::Url::parse(address).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let port = url.as_ref().and_then(url::Url::port_or_known_default).unwrap_or(443);
    let resolved = tokio::net::lookup_host((host.as_str(), port)).await.is_ok_and(|mut all| all.next().is_some());
    let consequence = format!("steps that call {name} would wait for it, and then park the run");
    if !resolved && host.parse::<IpAddr>().is_err() {
        return RESOLVE.blocker(
            format!("{host}, where {name} answers, does not resolve"),
            consequence,
            format!("check the resolver: getent hosts {host}; in a VPC without a way out, make an endpoint for {name}"),
        );
    }
    ANSWER.blocker(
        format!("{name} does not answer at {address}: {}", failure.message),
        consequence,
        "check the network, proxies and AWS_ENDPOINT_URL",
    )
}

/// Ranges as the run will give them, and whether anybody is let in from outside at all.
fn wanted<'a>(account: &'a Account<'_>) -> Option<(&'a SubjectStep, bool, bool)> {
    let step = account.subject.of_kind("aws.eks_cluster").next()?;
    Some((step, step.is("/public_access"), step.is("/private_access")))
}

pub(super) async fn access(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let Some((step, public, private)) = wanted(account) else { return Ok(found) };
    let name = step.text("/name").unwrap_or(&step.name);
    if !public && !private {
        found.push(NONE.blocker(
            format!("cluster {name} has neither a public nor a private endpoint"),
            "EKS refuses it",
            "set public_access or private_access",
        ));
        return Ok(found);
    }
    let by_lookups = account.subject.of_kind("aws.lookups").flat_map(|step| step.texts("/public_access_cidrs"));
    let mut ranges: Vec<String> = step.texts("/public_access_cidrs");
    ranges.extend(by_lookups);
    ranges.sort();
    ranges.dedup();
    found.extend(open(account, name, &ranges));
    let address = match own_address(account).await {
        Ok(address) => address,
        Err(why) => {
            found.push(ADDRESS.warning(
                format!("this machine's address cannot be asked for: {why}"),
                "whether it may reach the API server is not known before the cluster is up",
                "let it reach https://checkip.amazonaws.com, or name the ranges in public_access_cidrs",
            ));
            return Ok(found);
        }
    };
    if !public && needs_inside(account) && !is_inside(account, address) {
        found.push(PRIVATE.blocker(
            format!("cluster {name} gets a private endpoint only, and this machine ({address}) is not in its VPC"),
            "the control plane would come up, and nothing inside it could be built from here",
            "run platflow from inside the VPC (or over a VPN into it), or set public_access with public_access_cidrs",
        ));
    }
    if public && !ranges.is_empty() && !ranges.iter().any(|range| contains(range, address)) {
        found.push(OUTSIDE.blocker(
            format!("this machine ({address}) is outside public_access_cidrs ({})", ranges.join(", ")),
            "nothing inside the cluster could be built from here",
            format!("add {address}/{}", if address.is_ipv4() { 32 } else { 128 }),
        ));
    }
    Ok(found)
}

fn open(account: &Account<'_>, name: &str, ranges: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    if ranges.iter().any(|range| range == "0.0.0.0/0" || range == "::/0") {
        found.push(OPEN.warning(
            format!("the API server of {name} is open to every address"),
            "one leaked token, or one hole in the API server, and anybody is in",
            "name ranges in public_access_cidrs, or leave it empty for this machine alone",
        ));
    }
    let reserved: Vec<&str> = ranges
        .iter()
        .filter(|range| range.parse::<crate::preflight::Range>().is_ok_and(|range| range.is_private()))
        .map(String::as_str)
        .collect();
    if !reserved.is_empty() && !account.subject.sandbox {
        found.push(RESERVED.blocker(
            format!("public_access_cidrs has {}, which nobody on the Internet has", reserved.join(", ")),
            "EKS refuses private ranges there",
            "name the public addresses that these machines go out with",
        ));
    }
    found
}

/// Whether something of the run is done inside the cluster.
fn needs_inside(account: &Account<'_>) -> bool {
    let inside = ["kubernetes.", "argocd.", "vault.", "external_secrets.", "smoke."];
    account.subject.steps.iter().any(|step| inside.iter().any(|family| step.kind.starts_with(family)))
}

/// Whether an address is the VPC's own: then this machine goes out by no other.
fn is_inside(account: &Account<'_>, address: IpAddr) -> bool {
    account.subject.named("aws.vpc", "/cidr").any(|(_, cidr)| contains(cidr, address))
}

async fn own_address(account: &Account<'_>) -> Result<IpAddr, String> {
    let given = account.subject.of_kind("aws.lookups").find_map(|step| step.text("/address_url"));
    let url = account.aws.address_url.as_deref().or(given).unwrap_or("https://checkip.amazonaws.com");
    let request = account.aws.http.get(url).timeout(Duration::from_secs(10)).send();
    let answer = request.await.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
    let text = answer.text().await.map_err(|error| error.to_string())?;
    text.trim().parse().map_err(|_| format!("{url} answers {:?}", Value::from(text.trim()).to_string()))
}
