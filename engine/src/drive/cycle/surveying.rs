//! The search that ends a rollback: made after the last undo is durable, repeated while something may still be draining.
//!
//! Only a search that was made in full and found nothing of ours lets the run end; everything else parks it, named.

use super::{Cycle, Report};
use crate::clock::after;
use crate::drive::DriveError;
use crate::event::{Event, ParkReason};
use crate::failure::StepError;
use crate::name::StepName;
use crate::retry;
use crate::survey::{self, Findings, ResidueCertificate};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// How long something that was found may take to go by itself: tag indexes lag for minutes, EKS makes its log group again
/// when the last events of a dying cluster arrive.
const PATIENCE: Duration = Duration::from_secs(6 * 60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(15);
/// How many remnants a message names; the rest is in the certificate.
const NAMED: usize = 8;

/// How far the search is.
#[derive(Debug, Default)]
pub(super) struct Surveying {
    due: bool,
    under_way: bool,
    again_at: Option<Timestamp>,
    since: Option<Timestamp>,
    looks: u32,
    failures: u32,
    failing_since: Option<Timestamp>,
    refused: Option<ParkReason>,
}

impl Surveying {
    pub(super) fn begin(&mut self, at: Timestamp) {
        self.due = true;
        self.since = self.since.or(Some(at));
    }

    /// True while nothing else is to be decided.
    pub(super) fn pending(&self) -> bool {
        self.due || self.under_way || self.again_at.is_some()
    }

    pub(super) fn again_at(&self) -> Option<Timestamp> {
        self.again_at
    }

    pub(super) fn wake(&mut self, now: Timestamp) {
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.due = true;
        }
    }

    pub(super) fn refused(&mut self) -> Option<ParkReason> {
        self.refused.take()
    }
}

fn residue(certificate: &ResidueCertificate, environment: &str) -> ParkReason {
    let left: Vec<_> = certificate.left().collect();
    let mut named: Vec<String> =
        left.iter().take(NAMED).map(|one| format!("{} {} ({})", one.resource, one.id, one.maker)).collect();
    if left.len() > NAMED {
        named.push(format!("and {} more", left.len() - NAMED));
    }
    let steps = left.iter().filter_map(|one| StepName::new(one.maker.strip_prefix("step ")?).ok()).collect();
    let what = format!(
        "everything on record is undone, but a search of the cloud still finds {}; delete what nobody needs and search again, or strike a step off with: platflow forget {environment} --step <step> --confirm {environment}",
        named.join(", ")
    );
    ParkReason::NeedsHuman { steps, what }
}

impl Cycle<'_> {
    /// True unless there is nobody to search, or the search has come to a clean end.
    pub(super) fn survey_is_due(&self) -> bool {
        let proven = self.run.state.certificate.as_ref().is_some_and(ResidueCertificate::is_clean);
        !proven && !self.engine.catalog.surveys().is_empty()
    }

    /// Starts the search, once every undo is durable: it asks the journal what is meant to stay.
    pub(super) fn survey(&mut self) {
        if !std::mem::take(&mut self.surveying.due) {
            return;
        }
        self.surveying.under_way = true;
        let (reports, run) = (self.guard.reports.clone(), self.run.clone());
        let (journal, surveys) = (Arc::clone(&self.engine.journal), self.engine.catalog.surveys().to_vec());
        self.tasks.spawn(async move {
            let found = async {
                let scope = survey::scope(&journal, &run).await;
                let scope =
                    scope.map_err(|error| StepError::transient(format!("the record cannot be read: {error}")))?;
                let mut findings = Findings::default();
                for survey in surveys {
                    findings.add(survey.survey(&scope).await?);
                }
                Ok(findings)
            };
            // A loop that is gone is a crash: the next owner searches anew.
            let _ = reports.send(Report::Surveyed(found.await));
        });
    }

    pub(super) fn surveyed(&mut self, findings: Result<Findings, StepError>) -> Result<(), DriveError> {
        let now = self.engine.clock.now();
        self.surveying.under_way = false;
        if self.stopping.is_cancelled() {
            return Ok(());
        }
        match findings {
            Ok(Findings { searches, remnants }) => {
                self.surveying.looks += 1;
                self.surveying.failures = 0;
                self.surveying.failing_since = None;
                let certificate = ResidueCertificate { at: now, looks: self.surveying.looks, searches, remnants };
                let since = self.surveying.since.unwrap_or(now);
                if !certificate.is_clean() && now < after(since, PATIENCE) {
                    self.surveying.again_at = Some(after(now, PAUSE));
                    return Ok(());
                }
                if !certificate.is_clean() {
                    self.surveying.refused = Some(residue(&certificate, self.run.state.environment.as_str()));
                }
                self.fact(Event::ResidueSurveyed { certificate })
            }
            Err(error) => {
                self.surveying.failures += 1;
                let since = *self.surveying.failing_since.get_or_insert(now);
                self.surveying.again_at =
                    retry::next(&error, self.surveying.failures, since, now, None, &*self.engine.clock);
                if self.surveying.again_at.is_none() {
                    let remedy = error.remedy.as_deref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
                    let what = format!("everything on record is undone, but nothing proves it: {error}{remedy}");
                    self.surveying.refused = Some(ParkReason::NeedsHuman { steps: Vec::new(), what });
                }
                Ok(())
            }
        }
    }
}
