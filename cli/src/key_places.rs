//! Where secrets that cannot be made again go a second time, and who else can open them: said out loud before a real run.
//!
//! The defaults put the second copy of Vault's key shares beside the identity that opens both, which is no second place
//! once that disk is gone. For a sandbox that is fine; a real environment is warned; production must name both itself.

use crate::failure::CommandError;
use crate::settings::Settings;
use crate::target::Target;
use platflow_engine::journal::EnvironmentRow;
use platflow_engine::plan::PlannedStep;

/// The kind whose secrets cannot be made again.
const INITIALISES: &str = "vault.init";

/// What production is called: a part of the workflow's or the environment's name.
pub(crate) fn is_production(name: &str) -> bool {
    name.split(['-', '_', '.']).any(|part| part == "production" || part == "prod")
}

/// What is still at its default, as the operator would set it.
fn unnamed(settings: &Settings, initialising: &[&PlannedStep]) -> Vec<String> {
    let named = |step: &&PlannedStep| step.spec.get("second_store").is_some_and(|folder| !folder.is_null());
    let mut found = Vec::new();
    if !settings.second_key_store_named && !initialising.iter().all(named) {
        found.push(format!(
            "PLATFLOW_SECOND_KEY_STORE: the folder for the second copy of Vault's key shares, on another disk; \
             it would be {}, beside the identity that opens them",
            settings.second_key_store.display()
        ));
    }
    if settings.recipients.is_empty() {
        found.push(
            "PLATFLOW_RECIPIENTS: further age recipients that can open the shares; without one they are lost with \
             this machine's identity"
                .to_owned(),
        );
    }
    found
}

/// Looks at a run before anything is called for it.
///
/// # Errors
/// Exit 2 when production leaves a place to chance. Otherwise the warning to print, if there is one.
pub(crate) fn check<'a>(
    settings: &Settings,
    row: Option<&EnvironmentRow>,
    names: [&str; 2],
    steps: impl Iterator<Item = &'a PlannedStep>,
) -> Result<Option<String>, CommandError> {
    let initialising: Vec<&PlannedStep> = steps.filter(|step| step.kind.as_str() == INITIALISES).collect();
    let sandbox = match row {
        Some(row) => matches!(Target::recorded(row)?, Target::Sandbox { .. }),
        None => settings.sandbox,
    };
    if initialising.is_empty() || sandbox {
        return Ok(None);
    }
    let unnamed = unnamed(settings, &initialising);
    if unnamed.is_empty() {
        return Ok(None);
    }
    let list = unnamed.join("\n");
    if names.into_iter().any(is_production) {
        return Err(CommandError::usage(
            "a production run makes Vault's key shares, and where they are kept is left to chance; nothing was done",
        )
        .with_remedy(format!("set, and run the same command again:\n{list}")));
    }
    Ok(Some(format!("warning: Vault's key shares cannot be made again; for a platform that matters set\n{list}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves which names are production's.
    #[test]
    fn production_is_known_by_its_name() {
        for name in ["deploy-aws-production", "prod", "eu.prod", "aws_production"] {
            assert!(is_production(name), "{name}");
        }
        for name in ["deploy-aws-dev", "product-test", "reproduction", "preprod"] {
            assert!(!is_production(name), "{name}");
        }
    }
}
