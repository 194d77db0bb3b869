//! What went wrong in a step, and what it left behind: class × residue, never a string to be parsed.
//!
//! The class decides whether the engine tries again; the residue decides whether the step is undone in a rollback and
//! whether it must be observed before anything else happens to it. Retry schedules live in `retry`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a step failed, as far as it matters for what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// The network or a server hiccuped (connection reset, 5xx): try again.
    Transient,
    /// The API asked for less (throttling codes, 429): try again, slower.
    Throttled,
    /// Something just created is not visible everywhere yet (IAM roles, new ids): try again for a while.
    Propagation,
    /// A limit of the account is reached: waiting does not help, a human raises it.
    Quota,
    /// Not allowed: fail fast.
    Permission,
    /// Somebody else is changing the same thing, or it is in use: wait for it, bounded.
    Conflict,
    /// The request can never succeed as it is.
    Permanent,
    /// Only a human can decide (foreign owner, lost keys, data at stake).
    NeedsHuman,
}

/// What a failed or interrupted step left in the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residue {
    /// Nothing: claimed only after looking, or when the request was provably refused before any effect.
    None,
    /// Something is there.
    Present,
    /// Nobody knows. The default: a reply that was lost may hide an effect.
    Unknown,
}

/// A step's failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// What kind of failure it is.
    pub class: ErrorClass,
    /// What it left.
    pub residue: Residue,
    /// The API's own code where it has one (`VpcLimitExceeded`, `403`).
    pub code: Option<String>,
    /// One sentence: what happened, lower case, without a full stop.
    pub message: String,
    /// What the operator can do about it, if the step knows.
    pub remedy: Option<String>,
    /// What is there will never be right: it has to be removed before it can be built again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
}

/// Code of what is no failure: a decision is awaited, and the run parks until it is there.
const AWAITED: &str = "Awaited";

impl StepError {
    /// Somebody must decide before the step can be done. Nothing failed, so nothing is rolled back: the run parks and
    /// waits.
    #[must_use]
    pub fn awaited(message: impl Into<String>) -> Self {
        Self::needs_human(message).leaving(Residue::None).with_code(AWAITED)
    }

    /// True for [`StepError::awaited`].
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.code.as_deref() == Some(AWAITED)
    }

    /// A failure whose residue is unknown, the safe default.
    #[must_use]
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, residue: Residue::Unknown, code: None, message: message.into(), remedy: None, terminal: false }
    }

    /// The request can never succeed as it is.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, message)
    }

    /// A hiccup worth another try.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// Only a human can decide.
    #[must_use]
    pub fn needs_human(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NeedsHuman, message)
    }

    /// The same failure with the residue that the step established.
    #[must_use]
    pub fn leaving(mut self, residue: Residue) -> Self {
        self.residue = residue;
        self
    }

    /// The same failure with the API's code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same failure of something that was made and will never be right. It is there, by definition.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self.leaving(Residue::Present)
    }

    /// The same failure with advice for the operator.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(formatter, " ({code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for StepError {}
