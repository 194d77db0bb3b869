//! The shipped runbooks and modules with pieces of many lines cut out, doubled, moved, indented or taken from one another:
//! whatever comes of it is compiled or refused with places that exist, never a panic and never an endless wait. Short texts
//! and single expressions are in `language.rs`.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests fail the test by panicking")]

mod fixture;

use fixture::catalog;
use platflow_engine::graph::Graph;
use platflow_engine::kind::Catalog;
use platflow_report::Sweep;
use platflow_workflows::{CompileOptions, Library, ParameterValues, Source, compile};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant};

/// Far above what any case takes.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// The most lines that one mutation is about.
const PIECE: usize = 14;

/// A file and what modules are called by; runbooks have no such name.
#[derive(Debug, Clone)]
struct File {
    module: Option<String>,
    name: String,
    lines: Vec<String>,
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join("runbooks"), root.join("modules")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let module = path.strip_prefix(root.join("modules")).ok();
            let module = module.map(|path| path.with_extension("").to_string_lossy().into_owned());
            let text = std::fs::read_to_string(&path).expect("a runbook");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            found.push(File { module, name, lines: text.lines().map(str::to_owned).collect() });
        }
    }
    found.sort_by(|one, other| (&one.module, &one.name).cmp(&(&other.module, &other.name)));
    found
}

fn piece(lines: &[String], random: &mut StdRng) -> std::ops::Range<usize> {
    let from = random.random_range(0..=lines.len());
    from..(from + random.random_range(1..=PIECE)).min(lines.len())
}

/// One mutation of many lines, or of one.
fn mutate(lines: &mut Vec<String>, others: &[File], random: &mut StdRng) {
    let range = piece(lines, random);
    let to = random.random_range(0..=lines.len());
    match random.random_range(0..9) {
        0 => drop(lines.drain(range)),
        1 => {
            let doubled = lines[range].to_vec();
            lines.splice(to..to, doubled);
        }
        2 => {
            let moved: Vec<String> = lines.drain(range).collect();
            let to = to.min(lines.len());
            lines.splice(to..to, moved);
        }
        3 => lines[range].iter_mut().for_each(|line| line.insert_str(0, "  ")),
        4 => lines[range].iter_mut().for_each(|line| *line = line.strip_prefix("  ").unwrap_or(line).to_owned()),
        5 => {
            let other = others.choose(random).expect("files");
            let taken = other.lines[piece(&other.lines, random)].to_vec();
            lines.splice(range, taken);
        }
        6 => {
            let joined = lines[range.clone()].concat();
            lines.splice(range, [joined]);
        }
        7 => lines[range].reverse(),
        _ => {
            // A word in the place of another one, anywhere in the piece.
            let words = [
                "${",
                "}",
                "null",
                "[]",
                "{}",
                "- ",
                ": ",
                "&a",
                "*a",
                "!!map",
                "\"",
                "|",
                "steps.x.outputs.y",
                "\u{fe0f}é",
            ];
            for line in &mut lines[range] {
                if let Some((at, _)) = line.char_indices().nth(random.random_range(0..40)) {
                    line.insert_str(at, words.choose(random).expect("words"));
                }
            }
        }
    }
}

/// Compiles what became of a file: itself, or the development platform with the module in it.
fn judge(file: &File, catalog: &Catalog) -> Result<bool, String> {
    let text = file.lines.join("\n");
    let (library, source) = match &file.module {
        Some(module) => {
            let library = Library::new().with_module(module, &text);
            let source = library.find("deploy-aws-dev").expect("a shipped runbook");
            (library, source)
        }
        None => (Library::new(), Source::new(&file.name, text.clone())),
    };
    let mut values = ParameterValues::default();
    if file.name == "deploy-aws-production.yaml" {
        values.set("public_access_cidrs=[198.51.100.0/24]").expect("an assignment");
    }
    match compile(&library, &source, catalog, &values, &CompileOptions::default()) {
        Ok(compiled) => {
            Graph::new(&std::sync::Arc::new(compiled.plan.clone()))
                .map_err(|error| format!("it was compiled to no graph: {error}"))?;
            Ok(true)
        }
        Err(findings) => {
            for finding in &findings.list {
                let lines = if finding.file.ends_with(&file.name) { file.lines.len() + 1 } else { usize::MAX };
                if finding.line == 0 || finding.line > lines || finding.message.is_empty() {
                    return Err(format!("a finding without a place: {}", findings.plain()));
                }
            }
            (!findings.list.is_empty()).then_some(false).ok_or_else(|| "it was refused without a finding".to_owned())
        }
    }
}

/// Names the seed of a case that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            platflow_report::told(format_args!("seed {}", self.0));
        }
    }
}

/// Proves that no mutation of many lines of a shipped runbook or module makes the checker panic or wait, that what is
/// refused is refused with places that exist, and that what is not is a graph.
#[test]
fn mutated_runbooks_are_compiled_or_refused() {
    let cases = platflow_report::scaled(150, 5_000) as u64;
    let sweep = Sweep::begin("mutations of the shipped runbooks and modules");
    let (files, catalog) = (files(), catalog());
    assert!(files.len() >= 10, "{} files", files.len());
    for file in &files {
        assert_eq!(judge(file, &catalog), Ok(true), "{} as it is shipped", file.name);
    }
    let mut compiled = 0;
    for seed in 0..cases {
        let named = Named(seed);
        let mut random = StdRng::seed_from_u64(seed);
        let mut file = files.choose(&mut random).expect("files").clone();
        for _ in 0..random.random_range(1..=3) {
            mutate(&mut file.lines, &files, &mut random);
        }
        let begun = Instant::now();
        let judged = judge(&file, &catalog).unwrap_or_else(|problem| panic!("{problem}"));
        assert!(begun.elapsed() < HANGS_AFTER, "it took {:?}", begun.elapsed());
        compiled += u64::from(judged);
        drop(named);
    }
    let counted = format!("{compiled} compiled all the same, {} refused", cases - compiled);
    sweep.end(cases, format_args!("0 to {}", cases - 1), counted);
    assert!(compiled > 0 && compiled < cases / 2, "{compiled} of {cases} compiled: the mutations are no such");
}
