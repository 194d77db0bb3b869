//! Typed names: the identities that everything durable hangs on.
//!
//! A step is identified by its path name (`network.vpc`), never by an index, so an edited graph can never re-label an
//! old journal. This file only checks form; whether a name exists is for the graph and the store to say.

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// A name that breaks the rules of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {rule}")]
pub struct InvalidName {
    /// Which type of name was wanted, in words.
    pub what: &'static str,
    /// The text that was given.
    pub value: String,
    /// The rule it breaks, in words.
    pub rule: &'static str,
}

const MAX_LENGTH: usize = 200;

fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= MAX_LENGTH
        && value.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && value.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_'))
}

fn is_path(value: &str) -> bool {
    value.len() <= MAX_LENGTH && value.split('.').all(is_plain)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the text and makes the name.
            ///
            /// # Errors
            /// [`InvalidName`] names the rule that the text breaks.
            pub fn new(value: impl AsRef<str>) -> Result<Self, InvalidName> {
                let value = value.as_ref();
                if $check(value) {
                    Ok(Self(Arc::from(value)))
                } else {
                    Err(InvalidName { what: $what, value: value.to_owned(), rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, formatter)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::new(value)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        // By hand, because a derive would go through a String of its own each way: plans and journals are full of names.
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str(concat!("a ", $what))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A step's path name, e.g. `network.vpc` or `namespaces.quota.platform-apps`.
    StepName, "step name", is_path,
    "parts of lower-case letters, digits, '-' and '_', joined by '.', at most 200 characters"
);
name!(
    /// A step kind, e.g. `aws.vpc`.
    KindName, "step kind", is_path,
    "parts of lower-case letters, digits, '-' and '_', joined by '.', at most 200 characters"
);
name!(
    /// A workflow (runbook) name, e.g. `deploy-aws-dev`.
    WorkflowName, "workflow name", is_plain,
    "lower-case letters, digits, '-' and '_', starting with a letter or digit, at most 200 characters"
);
name!(
    /// An environment name, e.g. `aws-dev`: what a workflow builds.
    EnvironmentName, "environment name", is_plain,
    "lower-case letters, digits, '-' and '_', starting with a letter or digit, at most 200 characters"
);
name!(
    /// The random uid minted for an environment at its first run (26 base32 characters). Ownership tags carry it.
    EnvironmentUid, "environment uid", is_plain,
    "lower-case letters, digits, '-' and '_', starting with a letter or digit, at most 200 characters"
);
name!(
    /// A run id: short enough to type; any unique prefix of it works on the command line.
    RunId, "run id", is_plain,
    "lower-case letters, digits, '-' and '_', starting with a letter or digit, at most 200 characters"
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that path names accept dots between well-formed parts only, and plain names accept none.
    #[test]
    fn names_are_checked() {
        for good in ["vpc", "network.vpc", "namespaces.quota.platform-apps", "pool.3"] {
            assert!(StepName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "network.", ".vpc", "Network.vpc", "a b", "a..b", "ä"] {
            assert!(StepName::new(bad).is_err(), "{bad}");
        }
        assert!(RunId::new("a.b").is_err());
        assert!(StepName::new("a".repeat(201)).is_err());
    }
}
