//! The mutation gate: `cargo run -p platflow-gate` plants every defect into a copy of the sources below `target/`, builds
//! the copy once, and has it judge itself: each defect must be noticed, and nothing when there is none.
//!
//! Exit 0 when every defect was noticed, 1 otherwise.

use std::process::ExitCode;

#[cfg(not(feature = "planted"))]
fn main() -> ExitCode {
    match build_and_run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(feature = "planted"))]
#[expect(clippy::disallowed_methods, reason = "the gate builds the copy that it has planted with cargo")]
fn build_and_run() -> Result<bool, Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let tree = root.join("target/gate");
    platflow_gate::plant::tree(&root, &tree)?;
    // A target of its own: cargo knows packages by their place below the workspace, and would take the planted engine for
    // the real one.
    let status = std::process::Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "-p", "platflow-gate", "--features", "planted"])
        .arg("--target-dir")
        .arg(tree.join("target"))
        .current_dir(&tree)
        .status()?;
    Ok(status.success())
}

#[cfg(feature = "planted")]
fn main() -> ExitCode {
    use platflow_engine::mutant;
    use platflow_gate::{battery, mutants};
    std::panic::set_hook(Box::new(|_| {}));
    let cases = match battery::all() {
        Ok(cases) => cases,
        Err(problem) => {
            eprintln!("without any defect: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let clean = battery::judge(&cases);
    println!("without any defect: {:?} in {} cases, {:.1?}", clean.broken, clean.cases, clean.took);
    let mut survivors = Vec::new();
    let all = mutants::all();
    for (before, defect) in all.iter().enumerate() {
        mutant::set(before + 1);
        let verdict = battery::judge(&cases);
        mutant::set(0);
        match verdict.broken {
            Some((check, _)) => {
                println!("caught    {}: {check}, after {} cases, {:.1?}", defect.name, verdict.cases, verdict.took);
            }
            None => {
                println!("SURVIVED  {}: {} cases, {:.1?}", defect.name, verdict.cases, verdict.took);
                survivors.push(defect.name);
            }
        }
    }
    println!("{} defects, {} caught", all.len(), all.len() - survivors.len());
    // Threads that hang in a defect are left behind.
    if clean.broken.is_none() && survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
