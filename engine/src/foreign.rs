//! Somebody else's: the one text form in which an owner that is another environment is named, and the ways out of it.
//!
//! An owner is text, because a stranger is known by whatever the world tells of it. Another environment is known exactly,
//! and then the command that takes it over can be printed whole.

use crate::failure::{Residue, StepError};
use crate::name::{EnvironmentName, EnvironmentUid};
use std::fmt;

/// Names another environment as the owner of something.
#[must_use]
pub fn environment(name: &str, uid: &str, step: &str, run: &str) -> String {
    format!("environment {name} (uid {uid}), step {step}, run {run}")
}

/// The environment that an owner's text names, if it names one.
#[must_use]
pub fn named(owner: &str) -> Option<(EnvironmentName, EnvironmentUid)> {
    let (name, rest) = owner.split_once("environment ")?.1.split_once(" (uid ")?;
    let (uid, _) = rest.split_once(')')?;
    // What stands on a tag was written by anybody: only what can be a name becomes part of a command.
    Some((EnvironmentName::new(name).ok()?, EnvironmentUid::new(uid).ok()?))
}

/// The commands that lead out when something belongs to `owner`.
#[must_use]
pub fn ways_out(owner: &str) -> String {
    match named(owner) {
        Some((name, uid)) => format!(
            "work with the state file that environment {name} belongs to (--state), or choose another name for one of the two\n\
             if that state file is lost, take the environment over: platflow adopt {name} --from {uid}"
        ),
        None => "choose another name, or remove the other one, then resume the run".to_owned(),
    }
}

/// The refusal to touch somebody else's; nothing was changed.
#[must_use]
pub fn refusal(what: impl fmt::Display, owner: &str) -> StepError {
    StepError::needs_human(format!("{what} exists and is not this step's: it belongs to {owner}"))
        .leaving(Residue::None)
        .with_code("Foreign")
        .with_remedy(ways_out(owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the environment in an owner's text is read back, also behind the name of an object, and that nothing
    /// which is no name gets into a command.
    #[test]
    fn an_environment_is_read_back_from_an_owner() {
        let owner = environment("aws-dev", "6s54dnssb7t9s26vn37q3pcbv8", "hold", "m88w9hfp");
        for text in [owner.clone(), format!("ConfigMap a/b: {owner}")] {
            let (name, uid) = named(&text).expect("it names one");
            assert_eq!((name.as_str(), uid.as_str()), ("aws-dev", "6s54dnssb7t9s26vn37q3pcbv8"));
            assert!(ways_out(&text).contains("platflow adopt aws-dev --from 6s54dnssb7t9s26vn37q3pcbv8"));
        }
        for text in ["not made by platflow (tags team=b)", "environment $(reboot) (uid x y)", "environment a (uid b"] {
            assert_eq!(named(text), None, "{text}");
            assert!(!ways_out(text).contains("platflow adopt"), "{text}");
        }
    }
}
