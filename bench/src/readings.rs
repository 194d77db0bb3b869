//! Reads while others write: what `list` and `status` ask of a file with many events, alone and beside a run at full speed.

use crate::Failure;
use crate::measure::{Figures, Reading, peak};
use crate::plans::Shape;
use crate::subject::{self, Load, state_file};
use platflow_engine::journal::Journal;
use platflow_engine::name::RunId;
use platflow_state::{Store, StoreSettings};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So many lists and as many looks at a run are timed.
const READS: usize = 500;
/// Events that `logs` shows at once.
const PAGE: usize = 50;

/// Fills a file with the runs of a load, then measures reads of it; `beside` has a chain written at full speed meanwhile.
pub(crate) async fn measured(place: &Path, load: Load, beside: bool) -> Result<Figures, Failure> {
    subject::measured(place, load).await?;
    let store = Store::open_read_only(&state_file(place), StoreSettings::default())?;
    let over = Arc::new(AtomicBool::new(false));
    let writer = beside.then(|| tokio::spawn(write(place.to_owned(), load.runs, Arc::clone(&over))));
    let before = Reading::now();
    let mut samples = Vec::with_capacity(READS);
    for number in 0..READS {
        samples.push(read(&store, number % load.runs).await?);
    }
    over.store(true, Ordering::Relaxed);
    if let Some(writer) = writer {
        writer.await.map_err(|error| Failure::Ended(error.to_string()))??;
    }
    Ok(Figures { peak: peak(), ..before.since(READS as u64, 0, samples) })
}

/// What `list`, and `status` of one run, ask.
async fn read(store: &Store, number: usize) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let run = RunId::new(format!("bench-{number}"))?;
    store.list(None, PAGE).await?;
    let loaded = store.load(&run).await?;
    store.events(&run, loaded.summary.head.saturating_sub(PAGE as u64), PAGE).await?;
    Ok(begun.elapsed())
}

/// Chains of a hundred steps, one after the other, until told to stop.
async fn write(place: std::path::PathBuf, first: usize, over: Arc<AtomicBool>) -> Result<(), Failure> {
    let mut number = first;
    while !over.load(Ordering::Relaxed) {
        subject::another(&place, Shape::Chain, 100, number).await?;
        number += 1;
    }
    Ok(())
}
