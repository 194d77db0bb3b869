//! One rehearsed case, and the seed that names it: short enough to type, whole enough to replay.
//!
//! `j12.r` is a crash right after journal boundary 12, then a resume; `j12+.b` the same with the calls that were on their
//! way having landed, then a rollback; `c40b.r` and `c40a.r` a crash before and after the effect of mutating call 40;
//! `f:network.vpc:permanent.r` a step that fails, `+` after its work was done; `p:flaky:7.r` a fault profile. `~3` at the
//! end crashes the recovery too, after its third commit.

use platflow_engine::failure::ErrorClass;
use platflow_engine::name::StepName;
use std::fmt;
use std::str::FromStr;

/// What goes wrong first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The process dies when its n-th commit is durable and nobody has heard of it.
    Boundary {
        /// From 1.
        number: usize,
        /// Calls that were under way run on as far as they can without the journal; otherwise what had not landed never does.
        landed: bool,
    },
    /// The process dies at a mutating call.
    Call {
        /// From 1.
        number: usize,
        /// The call took effect, and its reply never came; otherwise it never arrived.
        after: bool,
    },
    /// The apply of a step fails once.
    Failure {
        /// Which.
        step: StepName,
        /// How.
        class: ErrorClass,
        /// After its work was done.
        landed: bool,
    },
    /// The cloud misbehaves all along the run.
    Profile {
        /// In which way.
        name: &'static str,
        /// Which calls are hit.
        seed: u64,
    },
}

/// What the operator does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Recovery {
    /// `resume`: the world must be that of an undisturbed run.
    Resume,
    /// `rollback`: the world must be empty.
    Rollback,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// What goes wrong first.
    pub(crate) origin: Origin,
    /// What is done about it.
    pub(crate) recovery: Recovery,
    /// The recovery dies too, after this many commits of its own; then it is begun again.
    pub(crate) again: Option<u64>,
}

/// The profiles there are.
pub(crate) const PROFILES: [&str; 4] = ["eventual", "flaky", "throttled", "hostile"];

/// The classes a step is made to fail with: one that heals by itself, one that parks, one that asks for a human.
pub(crate) const CLASSES: [ErrorClass; 3] = [ErrorClass::Transient, ErrorClass::Permanent, ErrorClass::NeedsHuman];

fn class_name(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Transient => "transient",
        ErrorClass::Throttled => "throttled",
        ErrorClass::Propagation => "propagation",
        ErrorClass::Quota => "quota",
        ErrorClass::Permission => "permission",
        ErrorClass::Conflict => "conflict",
        ErrorClass::Permanent => "permanent",
        ErrorClass::NeedsHuman => "needs-human",
    }
}

fn class_of(name: &str) -> Option<ErrorClass> {
    let all = [
        ErrorClass::Transient,
        ErrorClass::Throttled,
        ErrorClass::Propagation,
        ErrorClass::Quota,
        ErrorClass::Permission,
        ErrorClass::Conflict,
        ErrorClass::Permanent,
        ErrorClass::NeedsHuman,
    ];
    all.into_iter().find(|class| class_name(*class) == name)
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plus = |landed: bool| if landed { "+" } else { "" };
        match &self.origin {
            Origin::Boundary { number, landed } => write!(formatter, "j{number}{}", plus(*landed))?,
            Origin::Call { number, after } => write!(formatter, "c{number}{}", if *after { "a" } else { "b" })?,
            Origin::Failure { step, class, landed } => {
                write!(formatter, "f:{step}:{}{}", class_name(*class), plus(*landed))?;
            }
            Origin::Profile { name, seed } => write!(formatter, "p:{name}:{seed}")?,
        }
        formatter.write_str(match self.recovery {
            Recovery::Resume => ".r",
            Recovery::Rollback => ".b",
        })?;
        match self.again {
            Some(commits) => write!(formatter, "~{commits}"),
            None => Ok(()),
        }
    }
}

/// A seed that names no case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no case")]
pub(crate) struct BadSeed(String);

impl FromStr for Case {
    type Err = BadSeed;

    fn from_str(text: &str) -> Result<Self, BadSeed> {
        parse(text).ok_or_else(|| BadSeed(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Case> {
    let (rest, again) = match text.split_once('~') {
        Some((rest, commits)) => (rest, Some(commits.parse::<u64>().ok().filter(|commits| *commits > 0)?)),
        None => (text, None),
    };
    let (origin, recovery) = rest.rsplit_once('.')?;
    let recovery = match recovery {
        "r" => Recovery::Resume,
        "b" => Recovery::Rollback,
        _ => return None,
    };
    let (origin, landed) = match origin.strip_suffix('+') {
        Some(origin) => (origin, true),
        None => (origin, false),
    };
    let number = |digits: &str| digits.parse::<usize>().ok().filter(|number| *number > 0);
    let origin = if let Some(rest) = origin.strip_prefix("f:") {
        let (step, class) = rest.rsplit_once(':')?;
        Origin::Failure { step: StepName::new(step).ok()?, class: class_of(class)?, landed }
    } else if landed && !origin.starts_with('j') {
        return None;
    } else if let Some(rest) = origin.strip_prefix("p:") {
        let (name, seed) = rest.split_once(':')?;
        let name = PROFILES.into_iter().find(|known| *known == name)?;
        Origin::Profile { name, seed: seed.parse().ok()? }
    } else if let Some(digits) = origin.strip_prefix('j') {
        Origin::Boundary { number: number(digits)?, landed }
    } else {
        let digits = origin.strip_prefix('c')?;
        let after = digits.ends_with('a');
        let digits = digits.strip_suffix(if after { 'a' } else { 'b' })?;
        Origin::Call { number: number(digits)?, after }
    };
    Some(Case { origin, recovery, again })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seed reads back as the case that it was printed for.
    #[test]
    fn seeds_read_back() {
        let seeds = [
            "j1.r",
            "j123+.b",
            "c45b.r",
            "c45a.b~7",
            "f:network.vpc:permanent.r",
            "f:network.subnet.a:needs-human+.b~1",
            "p:flaky:7.r",
            "p:hostile:0.b~2",
        ];
        for seed in seeds {
            assert_eq!(seed.parse::<Case>().unwrap().to_string(), seed);
        }
    }

    /// What names no case is refused, with itself.
    #[test]
    fn other_texts_are_refused() {
        for bad in
            ["", "j1", "j0.r", "j.r", "jx.r", "j1.x", "c1.r", "c1c.r", "c1a+.r", "p:odd:1.r", "f:a:odd.r", "j1.r~0"]
        {
            assert_eq!(bad.parse::<Case>(), Err(BadSeed(bad.to_owned())), "{bad}");
        }
    }
}
