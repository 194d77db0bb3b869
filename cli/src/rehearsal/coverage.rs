//! What a rehearsal covered: places of the undisturbed run by kind, and how often each way of recovery was taken.

use crate::rehearsal::case::{CLASSES, Case, Origin, PROFILES, Recovery};
use crate::rehearsal::schedule::Extent;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of places, in the order in which they are told.
const KINDS: [(&str, &str); 5] = [
    ("boundaries", "journal boundaries"),
    ("calls", "before and after calls"),
    ("failures", "failing steps"),
    ("profiles", "fault profiles"),
    ("second_crashes", "second crashes"),
];

#[derive(Debug, Default)]
struct Seen {
    places: BTreeSet<String>,
    resumed: usize,
    rolled_back: usize,
}

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    seen: BTreeMap<&'static str, Seen>,
    /// Cases that were held.
    pub(crate) cases: usize,
}

fn kind(case: &Case) -> &'static str {
    match (&case.origin, case.again) {
        (_, Some(_)) => "second_crashes",
        (Origin::Boundary { .. }, None) => "boundaries",
        (Origin::Call { .. }, None) => "calls",
        (Origin::Failure { .. }, None) => "failures",
        (Origin::Profile { .. }, None) => "profiles",
    }
}

/// What is cut, without how it is recovered from.
fn place(case: &Case) -> String {
    match &case.origin {
        Origin::Boundary { number, .. } => number.to_string(),
        Origin::Call { number, after } => format!("{number} {after}"),
        Origin::Failure { step, .. } => step.to_string(),
        Origin::Profile { name, .. } => (*name).to_owned(),
    }
}

fn places(extent: &Extent, kind: &str) -> usize {
    match kind {
        "boundaries" | "second_crashes" => extent.boundaries.len(),
        "calls" => extent.calls * 2,
        "failures" => extent.steps.len(),
        _ => PROFILES.len(),
    }
}

impl Coverage {
    /// A case was held. A second crash counts where the recovery lived long enough to die.
    pub(crate) fn add(&mut self, case: &Case, crashed_again: bool) {
        self.cases += 1;
        if case.again.is_some() && !crashed_again {
            return;
        }
        let seen = self.seen.entry(kind(case)).or_default();
        seen.places.insert(place(case));
        match case.recovery {
            Recovery::Resume => seen.resumed += 1,
            Recovery::Rollback => seen.rolled_back += 1,
        }
    }

    /// How many journal boundaries were not come to.
    pub(crate) fn boundaries_left(&self, extent: &Extent) -> usize {
        let covered = self.seen.get("boundaries").map_or(0, |seen| seen.places.len());
        extent.boundaries.len().saturating_sub(covered)
    }

    /// For people, a line per kind.
    pub(crate) fn text(&self, extent: &Extent) -> String {
        let mut text = String::new();
        for (kind, words) in KINDS {
            let none = Seen::default();
            let seen = self.seen.get(kind).unwrap_or(&none);
            text.push_str(&format!(
                "  {words:<24} {:>5} of {:<5} ({} resumed, {} rolled back)\n",
                seen.places.len(),
                places(extent, kind),
                seen.resumed,
                seen.rolled_back
            ));
        }
        let classes: Vec<String> = CLASSES.iter().map(|class| format!("{class:?}").to_lowercase()).collect();
        text.push_str(&format!(
            "  failing steps fail as {}, with and without their work done; profiles are {}\n",
            classes.join(", "),
            PROFILES.join(", ")
        ));
        text
    }

    /// As JSON.
    pub(crate) fn json(&self, extent: &Extent) -> Value {
        let kinds = KINDS.iter().map(|(kind, _)| {
            let none = Seen::default();
            let seen = self.seen.get(kind).unwrap_or(&none);
            let told = json!({
                "covered": seen.places.len(),
                "of": places(extent, kind),
                "resumed": seen.resumed,
                "rolled_back": seen.rolled_back,
            });
            ((*kind).to_owned(), told)
        });
        Value::Object(kinds.collect())
    }
}
