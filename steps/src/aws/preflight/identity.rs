//! Who calls: the account's root user, a session that ends before the run does, a clock that is off.

use super::super::access_entry::session_role;
use super::super::iam_role::get_role;
use super::super::signed::signing_time;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding};
use jiff::{SignedDuration, Timestamp};
use platflow_engine::failure::StepError;

static ROOT: Check =
    Check::of_world("identity.root-user", Family::Identity, "The caller is not the account's root user");
static PRINCIPAL: Check =
    Check::of_world("identity.principal", Family::Identity, "The caller is a principal that EKS can let in");
static EXPIRY: Check =
    Check::of_world("identity.expiry", Family::Identity, "The credentials outlast the run or renew themselves");
static CLOCK: Check =
    Check::of_world("identity.clock", Family::Identity, "This machine's clock agrees with that of AWS");
static LONG_LIVED: Check =
    Check::of_world("identity.long-lived-keys", Family::Identity, "Production is not run with a user's access key");

pub(super) static CHECKS: &[&Check] = &[&CLOCK, &ROOT, &PRINCIPAL, &EXPIRY, &LONG_LIVED];

/// Signatures are refused beyond this (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>).
const REFUSED_BEYOND: SignedDuration = SignedDuration::from_mins(5);
/// An ordinary machine that asks for the time is closer than this.
const SUSPICIOUS_BEYOND: SignedDuration = SignedDuration::from_secs(60);

pub(super) async fn clock_and_caller(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let arn = account.aws.identity.arn.as_str();
    let resource = arn.splitn(6, ':').nth(5).unwrap_or_default();
    if resource == "root" {
        found.push(ROOT.warning(
            format!("the caller is {arn}"),
            "nothing limits it and nobody can tell who acted; EKS gives it no access entry",
            "use a role or a user made for this",
        ));
    }
    let wants_entry =
        account.subject.of_kind("aws.access_entry").any(|step| step.text("/principal_arn") == Some("caller"));
    if wants_entry && (resource == "root" || resource.starts_with("federated-user/")) {
        found.push(PRINCIPAL.blocker(
            format!("the caller is {arn}, and a step makes an access entry for the caller"),
            "EKS refuses such a principal: the cluster would come up and nobody here could enter it",
            "run as a role or a user, or name another principal instead of caller",
        ));
    } else if let Some(role) = session_role(arn).filter(|_| wants_entry)
        && get_role(account.aws, role).await?.is_none()
    {
        found.push(PRINCIPAL.blocker(
            format!("the role behind {arn} is not visible to IAM"),
            "an access entry needs the role's ARN with its path: the step would fail after the cluster is up",
            "name the principal's ARN instead of caller",
        ));
    }
    if account.subject.production && resource.starts_with("user/") {
        found.push(LONG_LIVED.warning(
            format!("the caller is {arn}, with an access key that does not end"),
            "whoever copies the key can change production until somebody notices",
            "use a role with sessions (aws sso login, or an instance's role)",
        ));
    }
    found.extend(expiry(account).await);
    found.extend(clock(account).await?);
    Ok(found)
}

async fn expiry(account: &Account<'_>) -> Option<Finding> {
    let end = Timestamp::try_from(account.aws.signed.expiry().await?).ok()?;
    let left = end.duration_since(real_now()?);
    let expected = SignedDuration::try_from(account.subject.expected).unwrap_or(SignedDuration::MAX);
    let evidence = format!("the credentials end at {end}, in {} min", left.as_mins());
    if left > expected + SignedDuration::from_mins(10) {
        return None;
    }
    let consequence = format!(
        "the run is expected to take {} min; when they end it parks, and what exists then costs on",
        expected.as_mins().max(1)
    );
    Some(EXPIRY.warning(
        evidence,
        consequence,
        "renew them first, or take some that renew themselves (a profile with SSO or a role)",
    ))
}

fn real_now() -> Option<Timestamp> {
    Timestamp::try_from(signing_time()).ok()
}

async fn clock(account: &Account<'_>) -> Result<Option<Finding>, StepError> {
    let (Some(before), told) = (real_now(), account.aws.signed.remote_time().await?) else { return Ok(None) };
    let (Some(after), Some(told)) = (real_now(), told) else { return Ok(None) };
    // The answer was written at some moment in between, and tells whole seconds only.
    let nearest = told.max(before).min(after);
    let off = nearest.duration_since(told).abs();
    let evidence = format!("this machine's clock is off by {} s from that of STS", off.as_secs());
    let remedy = "set the clock (timedatectl set-ntp true)";
    Ok(if off > REFUSED_BEYOND {
        let consequence =
            "AWS refuses signatures that are more than 5 min off, and tokens for the API server with them";
        Some(CLOCK.blocker(evidence, consequence, remedy))
    } else if off > SUSPICIOUS_BEYOND {
        let consequence = "beyond 5 min AWS refuses signatures; certificates and deadlines are judged by it, too";
        Some(CLOCK.warning(evidence, consequence, remedy))
    } else {
        None
    })
}
