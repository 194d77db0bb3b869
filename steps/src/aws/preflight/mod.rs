//! Checks that ask the account before anything is built in it: one file per family over answers that are shared and asked
//! once. Reads, dry runs and simulations only; which findings stop a run is their severity's.

mod account;
mod addon;
mod endpoint;
mod identity;
mod instance;
mod leftover;
mod name;
mod network;
mod permission;
mod quota;
mod spot;
mod version;
mod zone;

use self::account::Account;
use super::clients::AwsClients;
use crate::preflight::{Check, Examiner, Finding, Subject};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use platflow_engine::failure::{ErrorClass, StepError};
use std::future::Future;
use std::sync::Arc;

/// Makes the checks that need the account.
#[derive(Debug)]
pub struct AccountExaminer(pub Arc<AwsClients>);

/// What one look came to.
type Looked = Result<Vec<Finding>, StepError>;

/// One look and the checks that hang on it: a look that fails leaves all of them unchecked, which is told once.
fn part<'a>(
    checks: &'static [&'static Check],
    looking: impl Future<Output = Looked> + Send + 'a,
) -> BoxFuture<'a, Vec<Finding>> {
    async move {
        match looking.await {
            Ok(findings) => findings,
            Err(error) => unseen(checks, &error),
        }
    }
    .boxed()
}

fn unseen(checks: &'static [&'static Check], error: &StepError) -> Vec<Finding> {
    let Some(first) = checks.first() else { return Vec::new() };
    let ids: Vec<&str> = checks.iter().map(|check| check.id).collect();
    let evidence = format!("could not be looked at: {error}");
    let consequence = format!("not checked: {}", ids.join(", "));
    let remedy = error.remedy.clone().unwrap_or_else(|| "try again".to_owned());
    vec![match error.class {
        ErrorClass::Permission => first.warning(evidence, consequence, remedy),
        _ => first.note(evidence, consequence, remedy),
    }]
}

impl AccountExaminer {
    /// Every check that needs the account.
    #[must_use]
    pub fn all() -> Vec<&'static Check> {
        let families: [&[&'static Check]; 12] = [
            identity::CHECKS,
            permission::CHECKS,
            quota::CHECKS,
            zone::CHECKS,
            instance::CHECKS,
            spot::CHECKS,
            version::CHECKS,
            addon::CHECKS,
            name::CHECKS,
            network::CHECKS,
            endpoint::CHECKS,
            leftover::CHECKS,
        ];
        families.concat()
    }
}

#[async_trait]
impl Examiner for AccountExaminer {
    fn checks(&self) -> Vec<&'static Check> {
        Self::all()
    }

    async fn examine(&self, subject: &Subject) -> Vec<Finding> {
        let account = Account::new(&self.0, subject);
        let account = &account;
        let parts = vec![
            part(identity::CHECKS, identity::clock_and_caller(account)),
            part(permission::DRY_RUN, permission::dry_runs(account)),
            part(permission::SIMULATED, permission::simulated(account)),
            part(quota::CHECKS, quota::quotas(account)),
            part(zone::CHECKS, zone::zones(account)),
            part(instance::CHECKS, instance::instances(account)),
            part(spot::CHECKS, spot::market(account)),
            part(version::CHECKS, version::versions(account)),
            part(addon::CHECKS, addon::addons(account)),
            part(name::CHECKS, name::names(account)),
            part(network::CHECKS, network::networks(account)),
            part(endpoint::SERVICES, endpoint::services(account)),
            part(endpoint::ACCESS, endpoint::access(account)),
            part(leftover::CHECKS, leftover::leftovers(account)),
        ];
        join_all(parts).await.concat()
    }
}
