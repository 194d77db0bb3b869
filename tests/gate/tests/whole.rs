//! What holds of the gate itself without building the copy: the defects fit the sources, and nothing is broken without one.

use platflow_gate::{battery, mutants, plant};
use platflow_report::Sweep;
use std::collections::BTreeSet;
use std::path::Path;

/// Proves that each defect can still be planted: the text that it replaces is in the sources, once.
#[test]
fn every_defect_fits_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Err(lost) = plant::planted(&root) {
        panic!("{lost}");
    }
    let all = mutants::all();
    let names: BTreeSet<&str> = all.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), all.len(), "two defects of one name");
    assert!(all.iter().all(|mutant| mutant.edits.iter().any(|edit| edit.replace.contains("@on@"))));
    assert!(all.len() >= 60, "{}", all.len());
}

/// Proves that the checks accept what is shipped: what they say of a defect is said of the defect alone.
#[test]
fn nothing_is_broken_without_a_defect() {
    let sweep = Sweep::begin("the checks of the gate, without a defect");
    let cases = battery::all().unwrap_or_else(|problem| panic!("{problem}"));
    let verdict = battery::judge(&cases);
    assert!(verdict.broken.is_none(), "{:?}", verdict.broken);
    sweep.end(verdict.cases, "those of the checks", "none broken");
}
