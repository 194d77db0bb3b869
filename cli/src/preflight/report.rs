//! What the checks found, for people and for programs, and whether it lets a run begin.

use crate::failure::{CommandError, ExitCode};
use crate::views::output;
use platflow_steps::preflight::{Cause, Finding, Severity};
use serde_json::{Value, json};

/// The findings of one preflight, heaviest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    checks: usize,
    findings: Vec<Finding>,
}

impl Report {
    /// Of so many checks.
    pub(crate) fn new(checks: usize, mut findings: Vec<Finding>) -> Self {
        findings
            .sort_by(|a, b| (a.severity, a.check.family, a.check.id).cmp(&(b.severity, b.check.family, b.check.id)));
        findings.dedup();
        Self { checks, findings }
    }

    /// Findings of one severity.
    pub(crate) fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity == severity)
    }

    fn count(&self, severity: Severity) -> usize {
        self.of(severity).count()
    }

    /// Whether something would stop a run.
    pub(crate) fn blocks(&self) -> bool {
        self.count(Severity::Blocker) > 0
    }

    /// In one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "preflight: {} checks, {} blocker(s), {} warning(s), {} note(s)",
            self.checks,
            self.count(Severity::Blocker),
            self.count(Severity::Warning),
            self.count(Severity::Note)
        )
    }

    /// For programs: `{"checks", "findings": [{"check", "family", "severity", "evidence", "consequence", "remedy"}]}`.
    pub(crate) fn to_json(&self) -> Value {
        let one = |finding: &Finding| {
            json!({
                "check": finding.check.id,
                "family": finding.check.family.as_str(),
                "severity": finding.severity.as_str(),
                "evidence": finding.evidence,
                "consequence": finding.consequence,
                "remedy": finding.remedy,
            })
        };
        json!({"checks": self.checks, "findings": self.findings.iter().map(one).collect::<Vec<_>>()})
    }

    /// For people: each finding with what would come of it and what to do.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(crate) fn print(&self) -> Result<(), CommandError> {
        for finding in &self.findings {
            output::line(&told(finding))?;
        }
        output::line(&self.summary())
    }

    /// Refuses a run that would fail, unless its operator chose to go on.
    ///
    /// # Errors
    /// Exit 2 when only the request has to change, 6 when somebody has to decide.
    pub(crate) fn permit(&self, skipped: &[String]) -> Result<(), CommandError> {
        let (passed, stops): (Vec<&Finding>, Vec<&Finding>) =
            self.of(Severity::Blocker).partition(|finding| skipped.iter().any(|id| id == finding.check.id));
        for finding in passed {
            let Finding { check, evidence, consequence, .. } = finding;
            output::note(&format!("skipped {}: {evidence}; what may come of it: {consequence}", check.id));
        }
        if stops.is_empty() {
            return Ok(());
        }
        let code = if stops.iter().all(|finding| finding.check.cause == Cause::Request) {
            ExitCode::Usage
        } else {
            ExitCode::Stuck
        };
        let list: Vec<String> = stops.iter().map(|finding| told(finding)).collect();
        let ids: Vec<String> = stops.iter().map(|finding| format!("--skip-preflight {}", finding.check.id)).collect();
        let message = format!(
            "{} check(s) found what would make the run fail; nothing was changed\n{}",
            stops.len(),
            list.join("\n")
        );
        Err(CommandError::new(code, message).with_remedy(format!(
            "change what they name, and run the same command again\nor begin in spite of them: {}",
            ids.join(" ")
        )))
    }
}

fn told(finding: &Finding) -> String {
    let Finding { check, severity, evidence, consequence, remedy } = finding;
    let remedy = remedy.replace('\n', "\n           ");
    format!("{:<8} {}: {evidence}\n         then: {consequence}\n         help: {remedy}", severity.as_str(), check.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use platflow_steps::preflight::{Check, Family};

    static REQUEST: Check = Check::of_request("cost.request", Family::Cost, "a");
    static WORLD: Check = Check::of_world("state.world", Family::State, "b");

    /// Proves that warnings stop nothing, that a request that must change is exit 2 and a world exit 6, and that what was
    /// skipped stops no longer.
    #[test]
    fn blockers_stop_unless_they_are_skipped() {
        let (request, world) = (REQUEST.blocker("e", "c", "r"), WORLD.blocker("e", "c", "r"));
        let code = |findings: Vec<Finding>, skipped: &[&str]| {
            let skipped: Vec<String> = skipped.iter().map(|id| (*id).to_owned()).collect();
            Report::new(2, findings).permit(&skipped).err().map(|error| error.code)
        };
        assert_eq!(code(vec![WORLD.warning("e", "c", "r"), WORLD.note("e", "c", "r")], &[]), None);
        assert_eq!(code(vec![request.clone()], &[]), Some(ExitCode::Usage));
        assert_eq!(code(vec![request.clone(), world.clone()], &[]), Some(ExitCode::Stuck));
        assert_eq!(code(vec![request.clone(), world], &["state.world"]), Some(ExitCode::Usage));
        assert_eq!(code(vec![request], &["cost.request"]), None);
    }
}
