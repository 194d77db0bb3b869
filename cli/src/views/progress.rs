//! Progress of a run as it happens: live lines on a terminal, plain lines elsewhere, JSON lines on request.
//!
//! One stream of committed events feeds all three; nothing here decides anything, and nothing here may block the engine.

use crate::arguments::OutputFormat;
use crate::views::{event_text, output, time};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use platflow_engine::clock::Clock;
use platflow_engine::event::Event;
use platflow_engine::name::StepName;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A committed event on its way to the view.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    /// Its position in the journal.
    pub(crate) sequence: u64,
    /// The fact.
    pub(crate) event: Event,
}

/// Where the engine's side puts events; never blocks.
pub(crate) type Sender = mpsc::UnboundedSender<Committed>;

/// Renders events until the sending side is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    receiver: mpsc::UnboundedReceiver<Committed>,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Live(Box<Live>),
    Plain { started: BTreeMap<StepName, Timestamp> },
    Lines,
    Silent,
}

/// Starts a view: the sender for the engine, the view to be driven beside it.
#[must_use]
pub(crate) fn open(
    format: OutputFormat,
    live: bool,
    colour: bool,
    total: usize,
    clock: Arc<dyn Clock>,
) -> (Sender, Progress) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = match format {
        OutputFormat::Jsonl => Sink::Lines,
        OutputFormat::Json => Sink::Silent,
        OutputFormat::Text if live => Sink::Live(Box::new(Live::new(total, colour, clock))),
        OutputFormat::Text => Sink::Plain { started: BTreeMap::new() },
    };
    (sender, Progress { receiver, sink })
}

impl Progress {
    /// Shows everything until the engine is done.
    pub(crate) async fn show(mut self) {
        while let Some(committed) = self.receiver.recv().await {
            match &mut self.sink {
                Sink::Live(live) => live.take(&committed.event),
                Sink::Plain { started } => plain(&committed.event, started),
                Sink::Lines => {
                    let mut value = json!(committed.event);
                    if let Some(object) = value.as_object_mut() {
                        object.insert("sequence".to_owned(), json!(committed.sequence));
                    }
                    // A reader that went away must not stop the run.
                    let _ = output::json_line(&value);
                }
                Sink::Silent => {}
            }
        }
        if let Sink::Live(live) = &self.sink {
            live.close();
        }
    }
}

/// Events that matter to somebody who reads a log; intents and notes are for `platflow logs`.
fn is_shown(event: &Event) -> bool {
    !matches!(event, Event::StepIntended { attempt: 1, .. } | Event::StepNoted { .. } | Event::StepRecorded { .. })
}

/// When an event happened on the engine's clock, for those that say so.
fn at(event: &Event) -> Option<Timestamp> {
    match event {
        Event::RunStarted { at, .. }
        | Event::OwnerChanged { at, .. }
        | Event::DirectionSet { at, .. }
        | Event::StepIntended { at, .. }
        | Event::StepVerified { at, .. }
        | Event::StepFailed { at, .. }
        | Event::UndoIntended { at, .. }
        | Event::UndoFailed { at, .. }
        | Event::StepUndone { at, .. }
        | Event::StepForgotten { at, .. }
        | Event::RunParked { at, .. }
        | Event::RunResumed { at }
        | Event::RunFinished { at, .. } => Some(*at),
        Event::ResidueSurveyed { certificate } => Some(certificate.at),
        Event::StepRecorded { .. }
        | Event::StepNoted { .. }
        | Event::StepFound { .. }
        | Event::StepWaiting { .. }
        | Event::StepApplied { .. }
        | Event::StepSkipped { .. }
        | Event::UndoWaiting { .. }
        | Event::StepKept { .. } => None,
    }
}

fn plain(event: &Event, started: &mut BTreeMap<StepName, Timestamp>) {
    if let Event::StepIntended { step, at, .. } | Event::UndoIntended { step, at, .. } = event {
        started.entry(step.clone()).or_insert(*at);
    }
    if !is_shown(event) {
        return;
    }
    let mut line = event_text::describe(event);
    if let Event::StepVerified { step, at, .. } | Event::StepUndone { step, at, .. } = event
        && let Some(begun) = started.remove(step)
    {
        line.push_str(&format!(" in {}", time::duration(time::between(begun, *at))));
    }
    match at(event) {
        Some(at) => output::note(&format!("{}  {line}", time::seconds(at))),
        None => output::note(&format!("{:20}  {line}", "")),
    }
    for warning in event_text::warnings(event) {
        output::note(&format!("{:20}  {warning}", ""));
    }
}

/// The live block at the bottom of a terminal.
struct Live {
    bars: MultiProgress,
    total: ProgressBar,
    active: BTreeMap<StepName, (ProgressBar, Timestamp)>,
    clock: Arc<dyn Clock>,
    colour: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Live").field("active", &self.active.len()).finish_non_exhaustive()
    }
}

impl Live {
    fn new(total: usize, colour: bool, clock: Arc<dyn Clock>) -> Self {
        let bars = MultiProgress::new();
        let bar = bars.add(ProgressBar::new(total as u64));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bars, total: bar, active: BTreeMap::new(), clock, colour }
    }

    fn line(&self, mark: &str, code: &str, text: &str) {
        let mark = if self.colour { format!("\u{1b}[{code}m{mark}\u{1b}[0m") } else { mark.to_owned() };
        let _ = self.bars.println(format!("{mark} {text}"));
    }

    fn begin(&mut self, step: &StepName, at: Timestamp, verb: &str) {
        if self.active.contains_key(step) {
            return;
        }
        let bar = self.bars.insert_before(&self.total, ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(step.to_string());
        bar.set_message(verb.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.active.insert(step.clone(), (bar, at));
    }

    fn end(&mut self, step: &StepName) -> Option<Duration> {
        let (bar, begun) = self.active.remove(step)?;
        bar.finish_and_clear();
        Some(time::between(begun, self.clock.now()))
    }

    fn finish(&mut self, step: &StepName, mark: &str, code: &str, text: &str) {
        let elapsed = self.end(step).map(|length| format!("  {}", time::duration(length))).unwrap_or_default();
        self.line(mark, code, &format!("{text}{elapsed}"));
        self.total.inc(1);
    }

    fn take(&mut self, event: &Event) {
        let text = event_text::describe(event);
        match event {
            Event::StepIntended { step, at, .. } => self.begin(step, *at, "looking, then making it so"),
            Event::UndoIntended { step, at, .. } => self.begin(step, *at, "undoing"),
            Event::StepWaiting { step, reason, .. } | Event::UndoWaiting { step, reason, .. } => {
                if let Some((bar, begun)) = self.active.get(step) {
                    let elapsed = time::duration(time::between(*begun, self.clock.now()));
                    bar.set_message(format!("{reason} ({elapsed} so far)"));
                }
            }
            Event::StepVerified { step, .. } | Event::StepUndone { step, .. } => {
                self.finish(step, "ok", "32", &text);
                for warning in event_text::warnings(event) {
                    self.line("!!", "33", &warning);
                }
            }
            Event::StepSkipped { step, .. } | Event::StepKept { step, .. } | Event::StepForgotten { step, .. } => {
                self.finish(step, "--", "2", &text)
            }
            Event::StepFailed { step, retry_at, .. } | Event::UndoFailed { step, retry_at, .. } => {
                if retry_at.is_none() {
                    self.end(step);
                }
                self.line("!!", "31", &text);
            }
            Event::RunStarted { .. }
            | Event::OwnerChanged { .. }
            | Event::DirectionSet { .. }
            | Event::ResidueSurveyed { .. }
            | Event::RunParked { .. }
            | Event::RunResumed { .. }
            | Event::RunFinished { .. } => self.line("::", "36", &text),
            Event::StepRecorded { .. }
            | Event::StepNoted { .. }
            | Event::StepFound { .. }
            | Event::StepApplied { .. } => {}
        }
    }

    fn close(&self) {
        for (bar, _) in self.active.values() {
            bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}
