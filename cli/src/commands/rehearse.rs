//! `platflow rehearse`: crash and fail a runbook everywhere, in a private sandbox, before it is trusted with a cloud.
//!
//! What is rehearsed and how it is judged is `rehearsal`'s; this is the command: budget, output, exit code.

use crate::arguments::{OutputFormat, Rehearse};
use crate::failure::{CommandError, ExitCode};
use crate::rehearsal::case::Case;
use crate::rehearsal::coverage::Coverage;
use crate::rehearsal::folder::Folder;
use crate::rehearsal::schedule::{self, Extent};
use crate::rehearsal::stage::Script;
use crate::rehearsal::trial::Verdict;
use crate::rehearsal::workers::{self, Jobs, News};
use crate::settings::Settings;
use crate::signals::Signals;
use crate::views::{output, time};
use crate::{identifiers, runbook, wiring};
use jiff::Timestamp;
use platflow_engine::clock::{Clock, ScaledClock, after};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What was found so far.
#[derive(Default)]
struct Tally {
    coverage: Coverage,
    /// Cases that were told of, held or not.
    told: usize,
    violations: Vec<(Case, Verdict)>,
    /// What runs stopped for a human with, and how often.
    asked: BTreeMap<String, usize>,
}

/// Rehearses, or replays one case.
///
/// # Errors
/// A runbook that cannot be used (2), one that does not even end undisturbed (5), an interrupt (130).
pub(crate) async fn execute(arguments: Rehearse, settings: &Settings) -> Result<ExitCode, CommandError> {
    let replayed = arguments.replay.as_deref().map(str::parse::<Case>).transpose().map_err(|error| {
        CommandError::usage(error.to_string())
            .with_remedy("seeds are printed by platflow rehearse, such as j12.r, c40a.b or f:network.vpc:permanent.r")
    })?;
    let catalog = wiring::descriptions(settings).await?;
    let compiled = runbook::load(&arguments.workflow, &catalog, settings, None)?;
    let script = Arc::new(Script {
        real: Arc::new(compiled.rehearsed_for_real),
        plan: compiled.plan,
        uid: identifiers::environment_uid()?,
        run: identifiers::run_id()?,
    });
    let clock = ScaledClock::real();
    let started = clock.now();
    // Listened to before there is anything to leave behind.
    let mut signals = Signals::listen();
    let interrupted = async {
        match &mut signals {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    let folder = Folder::make(settings)?;
    let (sender, mut news) = mpsc::unbounded_channel();
    let jobs = Arc::new(Jobs::default());
    let count = if replayed.is_some() { 1 } else { arguments.workers.unwrap_or_else(processors).max(1) };
    if settings.output == OutputFormat::Text {
        output::note(&format!(
            "rehearsing {}: {} steps, {count} private sandbox(es), virtual time",
            script.plan.workflow,
            script.plan.steps.len()
        ));
    }
    let mut threads = Vec::new();
    for number in 0..count {
        let place = folder.path.join(format!("worker-{number}"));
        let tells = replayed.is_some();
        let (script, jobs) = (Arc::clone(&script), Arc::clone(&jobs));
        threads.push(workers::start(script, settings.clone(), place, jobs, tells, sender.clone())?);
    }
    drop(sender);
    let deadline = arguments.budget.map(|budget| after(started, budget));
    let rehearsal =
        Rehearsal { arguments: &arguments, settings, clock: &clock, started, jobs: &jobs, replayed: replayed.as_ref() };
    let result = tokio::select! {
        biased;
        _ = interrupted => {
            jobs.abandon();
            Err(CommandError::new(ExitCode::Interrupted, "interrupted; nothing is left of the rehearsal"))
        }
        result = rehearsal.listen(&mut news, deadline) => result,
    };
    jobs.close();
    drop(news);
    for thread in threads {
        // A worker ends with the case it is at; its panic was already told by its silence.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    result
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

struct Rehearsal<'a> {
    arguments: &'a Rehearse,
    settings: &'a Settings,
    clock: &'a ScaledClock,
    started: Timestamp,
    jobs: &'a Jobs,
    replayed: Option<&'a Case>,
}

impl Rehearsal<'_> {
    async fn listen(
        &self,
        news: &mut mpsc::UnboundedReceiver<News>,
        mut deadline: Option<Timestamp>,
    ) -> Result<ExitCode, CommandError> {
        let mut extent: Option<Extent> = None;
        let mut tally = Tally::default();
        let mut wanted = 0;
        loop {
            let over = async {
                match deadline.filter(|_| extent.is_some()) {
                    Some(deadline) => self.clock.sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let told = tokio::select! {
                biased;
                told = news.recv() => told,
                () = over => {
                    let left = extent.as_ref().map_or(0, |extent| tally.coverage.boundaries_left(extent));
                    if left == 0 {
                        break;
                    }
                    // Every boundary once is what a budget is promised to take, however slow the machine is.
                    wanted -= self.jobs.cut(extent.as_ref().map_or(0, |extent| extent.boundaries.len()));
                    deadline = None;
                    self.say_that_it_takes_longer(left);
                    continue;
                }
            };
            match told {
                // The queue is empty, or a worker is gone with the case that it was at.
                None if tally.told < wanted => {
                    let lost = wanted - tally.told;
                    return Err(CommandError::new(
                        ExitCode::Internal,
                        format!("{lost} case(s) were never judged: a worker ended before its time"),
                    ));
                }
                None => break,
                Some(News::Failed(error)) => return Err(error),
                Some(News::Filmed(found)) => {
                    if extent.is_none() {
                        wanted = self.plan(&found)?;
                        extent = Some(found);
                    }
                }
                Some(News::Judged { case, verdict, story }) => {
                    if self.replayed.is_some() {
                        return self.replay(&case, &verdict, &story);
                    }
                    self.take(&mut tally, case, verdict)?;
                }
            }
        }
        let Some(extent) = extent else {
            return Err(CommandError::new(ExitCode::Internal, "no worker came to an undisturbed run"));
        };
        self.conclude(&tally, &extent)
    }

    /// Says what is to be done, once it is known how long the run is.
    fn plan(&self, extent: &Extent) -> Result<usize, CommandError> {
        let sampled = self.arguments.budget.is_some() || self.arguments.cases.is_some();
        let mut cases = match self.replayed {
            Some(case) => vec![case.clone()],
            None if sampled => schedule::sampled(extent),
            None => schedule::whole(extent),
        };
        cases.truncate(self.arguments.cases.unwrap_or(usize::MAX));
        if self.settings.output == OutputFormat::Text {
            output::line(&format!(
                "undisturbed run: {} commits, {} mutating calls, in {}; {} cases to come",
                extent.boundaries.len(),
                extent.calls,
                time::duration(self.elapsed()),
                cases.len()
            ))?;
        }
        let count = cases.len();
        self.jobs.fill(cases);
        Ok(count)
    }

    fn say_that_it_takes_longer(&self, left: usize) {
        if self.settings.output == OutputFormat::Text {
            output::note(&format!(
                "the budget is spent; the journal boundaries that are left ({left}) are taken all the same"
            ));
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().duration_since(self.started).try_into().unwrap_or_default()
    }

    fn take(&self, tally: &mut Tally, case: Case, verdict: Verdict) -> Result<(), CommandError> {
        tally.told += 1;
        // The undisturbed runs of two workers may differ by a commit: the place that only one of them has is no case.
        if verdict.absent {
            return Ok(());
        }
        tally.coverage.add(&case, verdict.crashed_again);
        if let Some(what) = &verdict.asked {
            *tally.asked.entry(what.clone()).or_default() += 1;
        }
        if !verdict.findings.is_empty() {
            if self.settings.output == OutputFormat::Text {
                output::bytes(self.violation(&case, &verdict).as_bytes())?;
            }
            tally.violations.push((case, verdict));
        }
        Ok(())
    }

    fn violation(&self, case: &Case, verdict: &Verdict) -> String {
        let mut text = format!("violation {case}: {}\n", verdict.place);
        for finding in &verdict.findings {
            text.push_str(&format!("  expected {}; found {}\n", finding.expected, finding.found));
        }
        text.push_str(&format!(
            "  replay it with: platflow rehearse {} --replay {case}\n",
            self.arguments.workflow.workflow
        ));
        text
    }

    fn replay(&self, case: &Case, verdict: &Verdict, story: &[String]) -> Result<ExitCode, CommandError> {
        if verdict.absent {
            return Err(CommandError::usage(format!("{case}: this runbook has no such place")));
        }
        let good = verdict.findings.is_empty();
        if self.settings.output == OutputFormat::Text {
            for line in story {
                output::line(line)?;
            }
            if let Some(what) = &verdict.asked {
                output::line(&format!("it stopped for a human: {what}"))?;
            }
            if good {
                output::line(&format!("{case}: no violation"))?;
            } else {
                output::bytes(self.violation(case, verdict).as_bytes())?;
            }
        } else {
            let mut told = finding_json(case, verdict);
            if let Some(fields) = told.as_object_mut() {
                fields.insert("schema_version".to_owned(), json!(1));
                fields.insert("story".to_owned(), json!(story));
                fields.insert("asked".to_owned(), json!(verdict.asked));
            }
            output::json(&told)?;
        }
        Ok(if good { ExitCode::Done } else { ExitCode::Parked })
    }

    fn conclude(&self, tally: &Tally, extent: &Extent) -> Result<ExitCode, CommandError> {
        let elapsed = self.elapsed();
        let rate =
            f64::from(u32::try_from(tally.coverage.cases).unwrap_or(u32::MAX)) / elapsed.as_secs_f64().max(0.001);
        if self.settings.output == OutputFormat::Text {
            output::line(&format!("covered in {} ({rate:.1} cases/s):", time::duration(elapsed)))?;
            output::bytes(tally.coverage.text(extent).as_bytes())?;
            for (what, count) in &tally.asked {
                output::line(&format!("  {count} run(s) stopped for a human, as they should: {what}"))?;
            }
            let left = tally.coverage.boundaries_left(extent);
            if left > 0 {
                output::line(&format!("incomplete: {left} journal boundaries were not come to; give it more time"))?;
            }
            output::line(&format!("{} cases, {} violation(s)", tally.coverage.cases, tally.violations.len()))?;
        } else {
            let violations: Vec<_> =
                tally.violations.iter().map(|(case, verdict)| finding_json(case, verdict)).collect();
            output::json(&json!({
                "schema_version": 1,
                "workflow": self.arguments.workflow.workflow,
                "undisturbed": {"commits": extent.boundaries.len(), "calls": extent.calls},
                "cases": tally.coverage.cases,
                "complete": tally.coverage.boundaries_left(extent) == 0,
                "coverage": tally.coverage.json(extent),
                "asked": tally.asked,
                "violations": violations,
                "seconds": elapsed.as_secs_f64(),
            }))?;
        }
        Ok(if tally.violations.is_empty() { ExitCode::Done } else { ExitCode::Parked })
    }
}

fn finding_json(case: &Case, verdict: &Verdict) -> serde_json::Value {
    let findings: Vec<_> =
        verdict.findings.iter().map(|one| json!({"expected": one.expected, "found": one.found})).collect();
    json!({"seed": case.to_string(), "place": verdict.place, "findings": findings})
}
