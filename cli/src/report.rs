//! What a run came to, for people and as JSON: used at the end of a run and by `status`.
//!
//! A failure says what happened, what is left in the cloud, and the next command.

use crate::cost::{self, Built};
use crate::failure::{CommandError, ExitCode};
use crate::views::{event_text, residue, time};
use platflow_engine::event::{Direction, Effect, ParkReason};
use platflow_engine::fold::Run;
use platflow_engine::plan::PlannedStep;
use platflow_engine::state::{Phase, StepState};
use serde_json::{Value, json};

fn null() -> Value {
    Value::Null
}

fn built(run: &Run) -> Vec<(&PlannedStep, &StepState)> {
    run.steps().filter(|(_, state)| matches!(state.phase, Phase::Verified)).collect()
}

/// The monthly cost of what the run has built.
///
/// # Errors
/// Only if the price table in the binary is malformed.
pub(crate) fn estimate(run: &Run) -> Result<cost::Estimate, CommandError> {
    let empty = null();
    let steps: Vec<Built<'_>> = built(run)
        .into_iter()
        .map(|(step, state)| Built {
            step: step.name.as_str(),
            kind: step.kind.as_str(),
            spec: state.spec.as_ref().unwrap_or(&empty),
            outputs: state.outputs.as_ref().unwrap_or(&empty),
        })
        .collect();
    cost::estimate(&steps)
        .map_err(|error| CommandError::new(ExitCode::Internal, "the price table cannot be read").caused_by(error))
}

fn outputs_of<'a>(run: &'a Run, kind: &str) -> Option<&'a Value> {
    built(run).into_iter().find(|(step, _)| step.kind.as_str() == kind).and_then(|(_, state)| state.outputs.as_ref())
}

fn text<'a>(outputs: Option<&'a Value>, field: &str) -> Option<&'a str> {
    outputs.and_then(|outputs| outputs.get(field)).and_then(Value::as_str)
}

fn counts(run: &Run) -> (usize, usize, usize, usize) {
    let mut counts = (0, 0, 0, 0);
    for (_, state) in run.steps() {
        match (&state.phase, state.effect) {
            (Phase::Verified, Some(Effect::Created)) => counts.0 += 1,
            (Phase::Verified, Some(Effect::Changed)) => counts.1 += 1,
            (Phase::Verified, _) => counts.2 += 1,
            (Phase::Skipped { .. }, _) => counts.3 += 1,
            _ => {}
        }
    }
    counts
}

/// The closing report of a run that is done: how to get in, and what it costs.
///
/// # Errors
/// Only if the price table in the binary is malformed.
pub(crate) fn finished(run: &Run) -> Result<String, CommandError> {
    let environment = &run.state.environment;
    let (created, changed, unchanged, skipped) = counts(run);
    let took = run.state.ended_at.map(|end| time::duration(time::between(run.state.started_at, end)));
    let mut lines = vec![
        String::new(),
        format!("{environment} is up: run {} done in {}", run.id, took.unwrap_or_default()),
        format!("  steps       {created} created, {changed} changed, {unchanged} unchanged, {skipped} skipped"),
    ];
    if let Some(cluster) = outputs_of(run, "aws.eks_cluster") {
        let version = text(Some(cluster), "version").unwrap_or("?");
        let endpoint = text(Some(cluster), "endpoint").unwrap_or("?");
        lines.push(format!("  cluster     Kubernetes {version} at {endpoint}"));
        lines.push(format!("  kubeconfig  platflow kubeconfig {environment} > kubeconfig.yaml"));
    }
    if let Some(argocd) = outputs_of(run, "argocd.install") {
        let namespace = text(Some(argocd), "namespace").unwrap_or("argocd");
        let service = text(Some(argocd), "server_service").unwrap_or("argocd-server");
        lines.push(format!(
            "  Argo CD     kubectl --kubeconfig kubeconfig.yaml -n {namespace} port-forward svc/{service} 8080:443"
        ));
        lines.push(format!(
            "              user admin, password: platflow secret show {environment} argocd/admin-password"
        ));
    }
    if let Some(vault) = outputs_of(run, "vault.unseal") {
        let voters = vault.get("voters").map_or_else(String::new, |voters| match voters {
            Value::Array(list) => list.len().to_string(),
            other => other.to_string(),
        });
        let leader = text(Some(vault), "leader").unwrap_or("?");
        lines.push(format!("  Vault       initialised, unsealed, {voters} voters, leader {leader}"));
        lines.push(format!(
            "              key shares: platflow secret show {environment} vault/share-1 (of 5, any 3 unseal)"
        ));
    }
    let estimate = estimate(run)?;
    if !estimate.lines.is_empty() {
        lines.push(format!(
            "  cost        about ${:.2} per month (list prices of {}, {}; without traffic)",
            estimate.monthly_usd, estimate.prices_region, estimate.prices_of
        ));
    }
    lines.push(format!("  see         platflow status {}", run.id));
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// The closing report of a rollback.
#[must_use]
pub(crate) fn rolled_back(run: &Run) -> String {
    let mut gone = 0;
    let mut kept = Vec::new();
    for (step, state) in run.steps() {
        match &state.phase {
            Phase::Undone { .. } => gone += 1,
            Phase::Kept { reason } => kept.push(format!("  kept  {}: {reason}", step.name)),
            _ => {}
        }
    }
    let (id, count) = (&run.id, kept.len());
    let mut text = match &run.state.parked {
        Some(ParkReason::RolledBackTo { step }) => format!(
            "\nrun {id} is rolled back to {step}: {gone} steps undone, {count} kept; it goes forward again with: platflow resume {id}\n"
        ),
        _ => format!("\nrun {id} is rolled back: {gone} steps undone, {count} kept\n"),
    };
    for line in kept {
        text.push_str(&line);
        text.push('\n');
    }
    for (step, state) in run.steps() {
        let date = state.outputs.as_ref().and_then(|outputs| outputs.get("alias")).and_then(Value::as_str);
        if step.kind.as_str() == "aws.kms_key" && matches!(state.phase, Phase::Undone { .. }) {
            text.push_str(&format!(
                "  note  the KMS key behind {} waits for its deletion date; until then AWS shows it as PendingDeletion\n",
                date.unwrap_or(step.name.as_str())
            ));
        }
    }
    if let Some(certificate) = &run.state.certificate {
        text.push_str(&residue::summary(certificate));
    }
    text
}

/// The id, ARN or name among outputs.
#[must_use]
pub(crate) fn id_in(outputs: &Value) -> Option<&str> {
    let named = |key: &str| key.ends_with("_id") || key == "arn" || key == "name";
    let mut fields = outputs.as_object()?.iter();
    fields.find(|(key, value)| named(key) && value.is_string()).and_then(|(_, value)| value.as_str())
}

/// What is left in the cloud because of this run.
fn left(run: &Run) -> Vec<String> {
    run.steps()
        .filter(|(step, state)| state.touched() && !platflow_steps::leaves_nothing(&step.kind))
        .map(|(step, state)| {
            let id = state.outputs.as_ref().and_then(id_in);
            format!("{} ({}) {} {}", step.name, step.kind, state.phase.name(), id.unwrap_or("-"))
        })
        .collect()
}

/// The most lines of a list in a message; the rest is one `status` away.
const SHOWN: usize = 25;

/// What a parked run says: what happened, what is left, the next command.
#[must_use]
pub(crate) fn parked(run: &Run, reason: &ParkReason) -> String {
    let mut lines = Vec::new();
    for (step, state) in run.steps() {
        if let Some(error) = state.error().filter(|error| error.is_awaited()) {
            lines.push(format!("  {} ({}): {}", step.name, step.kind, error.message));
        } else if let Some(error) = state.error() {
            lines.push(format!("  {} ({}): {error}", step.name, step.kind));
            if let Some(remedy) = &error.remedy {
                lines.extend(remedy.lines().map(|line| format!("    help: {line}")));
            }
        }
    }
    let left = left(run);
    lines.push(match left.len() {
        0 => "  left in the cloud: nothing".to_owned(),
        count => format!("  left in the cloud ({count} steps):"),
    });
    lines.extend(left.iter().take(SHOWN).map(|line| format!("    {line}")));
    if left.len() > SHOWN {
        lines.push(format!("    … and {} more: platflow status {}", left.len() - SHOWN, run.id));
    }
    lines.extend(next(run, reason).iter().map(|(word, command)| format!("  {word}: {command}")));
    lines.join("\n")
}

/// The commands that lead on from a park, with the word that says how they relate: the first is the one to type.
#[must_use]
pub(crate) fn next(run: &Run, reason: &ParkReason) -> Vec<(&'static str, String)> {
    let environment = &run.state.environment;
    let forward = format!("platflow resume {}", run.id);
    let backward = format!("platflow rollback {} --confirm {environment}", run.id);
    match (reason, &run.state.direction) {
        (ParkReason::Waiting { steps }, Direction::Forward) => {
            let decide = |step| ("next", format!("platflow approve {} {step}", run.id));
            let refuse = |step| ("or refuse it", format!("platflow reject {} {step} --reason <why>", run.id));
            let mut commands: Vec<_> = steps.iter().map(decide).collect();
            commands.push(("then", forward));
            commands.extend(steps.iter().map(refuse));
            commands.push(("or undo it", backward));
            commands
        }
        (ParkReason::RolledBackTo { .. }, _) => vec![("next", forward)],
        // The direction, with what it keeps and how far it goes, is on record: it is gone on with as it was given.
        (ParkReason::NeedsHuman { .. }, Direction::Backward { confirmed: true, .. }) => {
            vec![("next, once the above is decided", forward)]
        }
        (ParkReason::NeedsHuman { .. }, Direction::Backward { .. }) => {
            vec![("next, once the above is decided", backward)]
        }
        (ParkReason::NeedsHuman { .. }, Direction::Forward) => {
            vec![("next, once the above is decided", forward), ("or undo it", backward)]
        }
        (_, Direction::Forward) => vec![("next", forward), ("or undo it", backward)],
        (_, Direction::Backward { .. }) => vec![("next", forward)],
    }
}

fn step_json(step: &PlannedStep, state: &StepState) -> Value {
    let waiting = match &state.phase {
        Phase::Waiting { reason, deadline, .. } | Phase::UndoWaiting { reason, deadline, .. } => {
            json!({"reason": reason, "deadline": deadline.to_string()})
        }
        Phase::Skipped { reason } | Phase::Kept { reason } => json!({"reason": reason}),
        Phase::Undone { evidence } => json!({"evidence": evidence}),
        Phase::Forgotten { by } => json!({"by": by}),
        _ => Value::Null,
    };
    json!({
        "name": step.name,
        "kind": step.kind,
        "state": state.phase.name(),
        "effect": state.effect,
        "attempt": state.attempt,
        "generation": state.generation,
        "started_at": state.intended_at.map(|at| at.to_string()),
        "changed_at": state.changed_at.map(|at| at.to_string()),
        "outputs": state.outputs,
        "error": state.error(),
        "detail": waiting,
        "needs": step.needs,
    })
}

/// A run as one JSON object.
///
/// # Errors
/// Only if the price table in the binary is malformed.
pub(crate) fn as_json(run: &Run) -> Result<Value, CommandError> {
    let steps: Vec<Value> = run.steps().map(|(step, state)| step_json(step, state)).collect();
    Ok(json!({
        "schema_version": 1,
        "id": run.id,
        "workflow": run.plan.workflow,
        "environment": run.state.environment,
        "environment_uid": run.state.environment_uid,
        "status": run.state.status().as_str(),
        "direction": run.state.direction,
        "parked": run.state.parked,
        "next": run.state.parked.iter().flat_map(|reason| next(run, reason)).map(|(_, command)| command).collect::<Vec<_>>(),
        "plan_digest": run.state.plan_digest,
        "destroy": run.state.destroy,
        "events": run.head,
        "epoch": run.state.epoch,
        "started_at": run.state.started_at.to_string(),
        "ended_at": run.state.ended_at.map(|at| at.to_string()),
        "residue_certificate": run.state.certificate.as_ref().map(residue::as_json),
        "monthly_usd": estimate(run)?.monthly_usd,
        "steps": steps,
    }))
}

/// A run for people: one line a step, folded by module.
#[must_use]
pub(crate) fn table(run: &Run) -> String {
    let mut text = format!(
        "run {}  {}  environment {}  {}  started {}\n",
        run.id,
        run.plan.workflow,
        run.state.environment,
        run.state.status().as_str(),
        time::short(run.state.started_at)
    );
    let mut module = String::new();
    for (step, state) in run.steps() {
        let (group, name) = step.name.as_str().split_once('.').unwrap_or(("", step.name.as_str()));
        if group != module {
            module = group.to_owned();
            text.push_str(&format!("{}\n", if group.is_empty() { "." } else { group }));
        }
        let detail = match &state.phase {
            Phase::Waiting { reason, .. } | Phase::UndoWaiting { reason, .. } => reason.clone(),
            Phase::Failed { error, .. } | Phase::UndoFailed { error, .. } => error.to_string(),
            Phase::Skipped { reason } | Phase::Kept { reason } => reason.clone(),
            Phase::Undone { evidence } => evidence.clone(),
            Phase::Forgotten { by } => format!("struck off the record by {by}"),
            Phase::Verified => state.effect.map(event_text::effect_word).unwrap_or_default().to_owned(),
            Phase::Pending
            | Phase::Intended
            | Phase::Applied
            | Phase::Unknown
            | Phase::Undoing
            | Phase::UndoUnknown => String::new(),
        };
        text.push_str(&format!("  {:<34} {:<26} {:<12} {detail}\n", name, step.kind, state.phase.name()));
    }
    if let Some(certificate) = &run.state.certificate {
        text.push_str(&residue::full(certificate));
    }
    if let Some(reason) = &run.state.parked {
        text.push_str(&format!("stopped: {}\n{}\n", event_text::park_reason(reason), parked(run, reason)));
    }
    text
}
