//! The residue certificate for people and as JSON: what was searched, by which calls, when, and what was found.

use crate::views::time;
use platflow_engine::survey::{Remnant, ResidueCertificate, Standing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn count(certificate: &ResidueCertificate) -> usize {
    certificate.left().count()
}

/// One line, as in the journal.
#[must_use]
pub(crate) fn headline(certificate: &ResidueCertificate) -> String {
    let not_made = certificate.searches.iter().filter(|search| search.not_made.is_some()).count();
    let made = certificate.searches.len() - not_made;
    let not_made = if not_made > 0 { format!(" ({not_made} more could not be made)") } else { String::new() };
    match count(certificate) {
        0 => format!("searched for residue: {made} searches{not_made}, nothing of ours is left"),
        left => format!("searched for residue: {made} searches{not_made}, {left} thing(s) of ours are left"),
    }
}

fn line(remnant: &Remnant) -> String {
    let Remnant { resource, id, maker, standing } = remnant;
    let why = match standing {
        Standing::Left => "left".to_owned(),
        Standing::Kept { reason } => format!("stays: {reason}"),
        Standing::Expiring { on } => format!("waits for its deletion on {on}"),
        Standing::Foreign { owner } => format!("not ours: {owner}"),
    };
    format!("  {resource:<24} {id}  ({maker})  {why}\n")
}

/// The headline and everything that was found.
#[must_use]
pub(crate) fn summary(certificate: &ResidueCertificate) -> String {
    let mut text = format!("residue certificate of {}: {}\n", time::short(certificate.at), headline(certificate));
    let kept = certificate.remnants.iter().filter(|one| matches!(one.standing, Standing::Kept { .. })).count();
    for remnant in certificate.remnants.iter().filter(|one| !matches!(one.standing, Standing::Kept { .. })) {
        text.push_str(&line(remnant));
    }
    if kept > 0 {
        text.push_str(&format!("  {kept} thing(s) of ours stay, as declared or on record\n"));
    }
    text
}

/// The summary, and every search by its call.
#[must_use]
pub(crate) fn full(certificate: &ResidueCertificate) -> String {
    let mut text = summary(certificate);
    let mut calls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for search in &certificate.searches {
        let found = match &search.not_made {
            Some(reason) => format!("{} (NOT MADE: {reason})", search.filter),
            None => format!("{} ({})", search.filter, search.found),
        };
        calls.entry(&search.call).or_default().push(found);
    }
    text.push_str(&format!("  searched in {} look(s), found in brackets:\n", certificate.looks));
    for (call, filters) in calls {
        text.push_str(&format!("    {call}: {}\n", filters.join("; ")));
    }
    text
}

/// As one JSON object.
#[must_use]
pub(crate) fn as_json(certificate: &ResidueCertificate) -> Value {
    json!({
        "at": certificate.at.to_string(),
        "looks": certificate.looks,
        "clean": certificate.is_clean(),
        "searches": certificate.searches,
        "found": certificate.remnants,
    })
}
