//! The tables: which measurements, in which turns, and how they are printed.

use crate::commands::{Place, program};
use crate::figures::{self, Task, Who};
use crate::measure::Figures;
use crate::plans::Shape;
use crate::{Failure, Table};
use std::path::{Path, PathBuf};

/// Everything that is asked of one row.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    shape: Shape,
    steps: usize,
    runs: usize,
    in_flight: usize,
    floor: bool,
}

const BOUND: usize = 256;

fn rows(table: Table) -> Vec<Row> {
    let row = |name, shape, steps, runs, floor| Row { name, shape, steps, runs, in_flight: BOUND, floor };
    match table {
        Table::W1 => vec![
            row("chain of 1,000", Shape::Chain, 1_000, 1, true),
            row("chain of 10,000", Shape::Chain, 10_000, 1, true),
        ],
        Table::W2 => {
            vec![row("wide, 1,000", Shape::Wide, 1_000, 1, true), row("wide, 10,000", Shape::Wide, 10_000, 1, true)]
        }
        Table::W3 => vec![row("1,000 runs of 10", Shape::Chain, 10, 1_000, false)],
        Table::W4 => vec![
            row("chain of 10,000, killed at 5,000", Shape::Chain, 10_000, 1, false),
            row("wide, 100,000, killed at 50,000", Shape::Wide, 100_000, 1, false),
        ],
        Table::W6 => [Shape::Wide, Shape::Layered]
            .into_iter()
            .flat_map(|shape| {
                let name = if shape == Shape::Wide { "wide" } else { "layered" };
                [10_000, 100_000, 1_000_000].map(|steps| row(name, shape, steps, 1, false))
            })
            .collect(),
        Table::W5 => Vec::new(),
        Table::W7 => vec![row("5,000 runs of 100", Shape::Chain, 100, 5_000, false)],
    }
}

/// Measures and prints.
pub(crate) fn print(wanted: &[Table], repeat: usize, folder: Option<&Path>, quick: bool) -> Result<(), Failure> {
    let all = [Table::W1, Table::W2, Table::W3, Table::W4, Table::W5, Table::W6, Table::W7];
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    if cfg!(debug_assertions) {
        line("not a release build: these figures mean little");
    }
    for table in all.into_iter().filter(|table| wanted.is_empty() || wanted.contains(table)) {
        let shrink = |mut row: Row| {
            row.steps = if quick { (row.steps / 10).max(10) } else { row.steps };
            row
        };
        let rows: Vec<Row> = rows(table).into_iter().map(shrink).collect();
        match table {
            Table::W4 => resumptions(&rows, repeat, &folder)?,
            Table::W5 => commands(repeat, &folder)?,
            Table::W7 => reads(&rows, repeat, &folder)?,
            _ => throughput(table, &rows, repeat, &folder)?,
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
fn line(text: &str) {
    println!("{text}");
}

fn task(row: &Row, who: Who, place: PathBuf) -> Task {
    Task { who, shape: row.shape, steps: row.steps, runs: row.runs, in_flight: row.in_flight, place, started: 0 }
}

fn fresh(folder: &Path) -> Result<tempfile::TempDir, Failure> {
    Ok(tempfile::Builder::new().prefix("platflow-bench-").tempdir_in(folder)?)
}

/// The middle one; with an even number the higher of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{} ({}-{})", whole(median(values.to_vec())), whole(low), whole(high))
}

/// With a comma at the thousands.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn of(figures: &[Figures], what: impl Fn(&Figures) -> f64) -> f64 {
    median(figures.iter().map(what).collect())
}

fn throughput(table: Table, rows: &[Row], repeat: usize, folder: &Path) -> Result<(), Failure> {
    let samples = if table == Table::W1 { "gap p50 / p99 us" } else { "append p50 / p99 us" };
    line(&format!("\n### {table:?}\n"));
    line(&format!(
        "| work | steps | who | steps/s | of the floor | {samples} | CPU us/step | written B/step | file B/step | peak MB |"
    ));
    line("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let (mut floor, mut engine) = (Vec::new(), Vec::new());
        // A million steps take their time, and one run of that length is its own average.
        let repeat = if row.steps >= 1_000_000 { repeat.min(2) } else { repeat };
        for _ in 0..repeat {
            for who in [Who::Floor, Who::Engine] {
                if who == Who::Floor && !row.floor {
                    continue;
                }
                let place = fresh(folder)?;
                let figures = figures::asked(&task(row, who, place.path().to_owned()))?;
                if who == Who::Floor { floor.push(figures) } else { engine.push(figures) }
            }
        }
        for (who, figures) in [("floor", &floor), ("engine", &engine)] {
            if !figures.is_empty() {
                let ratio =
                    if who == "engine" && !floor.is_empty() { ratio(table, &floor, figures) } else { String::new() };
                line(&throughput_row(row, who, figures, &ratio));
            }
        }
    }
    Ok(())
}

/// On the mean of the whole, and for chains on the middle gap as well.
fn ratio(table: Table, floor: &[Figures], engine: &[Figures]) -> String {
    let mean = of(engine, Figures::rate) / of(floor, Figures::rate);
    if table == Table::W1 {
        let middle = of(floor, |one| one.p50_us) / of(engine, |one| one.p50_us);
        return format!("{mean:.2}; {middle:.2} on p50");
    }
    format!("{mean:.2}")
}

fn throughput_row(row: &Row, who: &str, figures: &[Figures], ratio: &str) -> String {
    let rates: Vec<f64> = figures.iter().map(Figures::rate).collect();
    format!(
        "| {} | {} | {who} | {} | {ratio} | {:.0} / {:.0} | {:.1} | {} | {:.0} | {:.1} |",
        row.name,
        whole((row.steps * row.runs) as f64),
        spread(&rates),
        of(figures, |one| one.p50_us),
        of(figures, |one| one.p99_us),
        of(figures, |one| one.cpu_us),
        whole(of(figures, |one| one.written)),
        of(figures, |one| one.file),
        of(figures, |one| one.peak as f64) / 1e6,
    )
}

fn resumptions(rows: &[Row], repeat: usize, folder: &Path) -> Result<(), Failure> {
    line("\n### W4\n");
    line("| work | exec to first new step, ms | exec to end, s | done twice | never done | peak MB |");
    line("| --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let (mut figures, mut twice, mut never) = (Vec::new(), 0, 0);
        for _ in 0..repeat {
            let place = fresh(folder)?;
            let path = place.path().to_owned();
            figures::killed(&task(row, Who::Dying(row.steps as u64 / 2), path.clone()))?;
            figures.push(figures::asked(&task(row, Who::Resuming, path.clone()))?);
            let (again, missing) = figures::repeats(&path, row.steps)?;
            (twice, never) = (twice.max(again), never.max(missing));
        }
        let first: Vec<f64> = figures.iter().map(|one| one.p50_us / 1e3).collect();
        line(&format!(
            "| {} | {} | {:.2} | at most {twice} | {never} | {:.1} |",
            row.name,
            spread(&first),
            of(&figures, |one| one.seconds),
            of(&figures, |one| one.peak as f64) / 1e6,
        ));
    }
    Ok(())
}

fn commands(repeat: usize, folder: &Path) -> Result<(), Failure> {
    let (mut first, mut status, mut help) = (Vec::new(), Vec::new(), Vec::new());
    let milliseconds = |took: std::time::Duration| took.as_secs_f64() * 1e3;
    for _ in 0..repeat {
        let place = Place::new(folder)?;
        first.push(milliseconds(place.first_step()?));
        status.push(milliseconds(place.timed(&["list"])?));
        help.push(milliseconds(place.timed(&["--help"])?));
    }
    let megabytes = std::fs::metadata(program()?)?.len() as f64 / 1e6;
    line("\n### W5\n");
    line("| what | ms |");
    line("| --- | --- |");
    for (what, values) in [
        ("exec to the first step of a runbook of ten, new state file", &first),
        ("`list`", &status),
        ("`--help`", &help),
    ] {
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.first().copied().unwrap_or_default(), values.last().copied().unwrap_or_default());
        line(&format!("| {what} | {:.1} ({low:.1}-{high:.1}) |", median(values)));
    }
    line(&format!("\nThe binary has {megabytes:.1} MB."));
    Ok(())
}

fn reads(rows: &[Row], repeat: usize, folder: &Path) -> Result<(), Failure> {
    line("\n### W7\n");
    line("| file | list, status and a page of events: p50 / p99 us | beside a writer at full speed |");
    line("| --- | --- | --- |");
    for row in rows {
        let mut cells = Vec::new();
        for beside in [false, true] {
            let mut figures = Vec::new();
            for _ in 0..repeat.min(3) {
                let place = fresh(folder)?;
                figures.push(figures::asked(&task(row, Who::Reading(beside), place.path().to_owned()))?);
            }
            cells.push(format!("{:.0} / {:.0}", of(&figures, |one| one.p50_us), of(&figures, |one| one.p99_us)));
        }
        line(&format!("| {} | {} |", row.name, cells.join(" | ")));
    }
    Ok(())
}
