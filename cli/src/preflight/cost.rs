//! What the run would cost by the month, against the most that its operator allows.

use crate::cost::{self, Built, Estimate};
use async_trait::async_trait;
use platflow_steps::preflight::{Check, Examiner, Family, Finding, Subject};
use serde_json::{Value, json};

static CEILING: Check =
    Check::of_world("cost.ceiling", Family::Cost, "The monthly cost stays below the ceiling that was set");
static AT_MOST: Check =
    Check::of_world("cost.ceiling-at-maximum", Family::Cost, "It does so when every pool is at its maximum");
static UNPRICED: Check =
    Check::of_world("cost.unpriced", Family::Cost, "Everything that costs has a price in the table");
static NO_CEILING: Check =
    Check::of_request("cost.no-ceiling", Family::Cost, "Production has a ceiling for its monthly cost");

pub(super) static CHECKS: &[&Check] = &[&CEILING, &AT_MOST, &UNPRICED, &NO_CEILING];

/// Holds the estimate against the ceiling, in US dollars by the month.
pub(super) struct Ceiling {
    pub(super) dollars: Option<f64>,
}

/// Kind, name, spec and outputs of the steps that cost, with the ids in them that nobody knows yet made up.
fn wanted(subject: &Subject, at_maximum: bool) -> Vec<(String, String, Value, Value)> {
    let one = |step: &platflow_steps::preflight::SubjectStep| {
        let (mut spec, mut outputs) = (step.spec.clone(), json!({}));
        // Group and template belong together by the module that they came from.
        match (step.kind.as_str(), spec.as_object_mut()) {
            ("aws.launch_template", _) => outputs = json!({"launch_template_id": step.parent()}),
            ("aws.node_group", Some(fields)) => {
                fields.insert("launch_template_id".to_owned(), json!(step.parent()));
                if let Some(most) = fields.get("max").cloned().filter(|_| at_maximum) {
                    fields.insert("desired".to_owned(), most);
                }
            }
            _ => {}
        }
        (step.name.clone(), step.kind.clone(), spec, outputs)
    };
    subject.steps.iter().map(one).collect()
}

fn estimate(subject: &Subject, at_maximum: bool) -> Option<Estimate> {
    let all = wanted(subject, at_maximum);
    let built: Vec<Built<'_>> =
        all.iter().map(|(step, kind, spec, outputs)| Built { step, kind, spec, outputs }).collect();
    cost::estimate(&built).ok()
}

#[async_trait]
impl Examiner for Ceiling {
    fn checks(&self) -> Vec<&'static Check> {
        CHECKS.to_vec()
    }

    async fn examine(&self, subject: &Subject) -> Vec<Finding> {
        let mut found = Vec::new();
        let (Some(now), Some(most)) = (estimate(subject, false), estimate(subject, true)) else { return found };
        if now.lines.is_empty() && now.unpriced.is_empty() {
            return found;
        }
        let (cost, at_most) = (now.monthly_usd, most.monthly_usd);
        match self.dollars {
            Some(ceiling) if cost > ceiling => found.push(CEILING.blocker(
                format!("the run would cost about ${cost:.2} per month (list prices of {}, {}), the ceiling is ${ceiling:.2}", now.prices_region, now.prices_of),
                "more is spent than was agreed to",
                "ask for less (pools, nat_gateways), or raise PLATFLOW_COST_CEILING",
            )),
            Some(ceiling) if at_most > ceiling => found.push(AT_MOST.warning(
                format!("with every pool at its maximum it costs about ${at_most:.2} per month, the ceiling is ${ceiling:.2}"),
                "an autoscaler spends more than was agreed to",
                "lower the maxima of the pools, or raise PLATFLOW_COST_CEILING",
            )),
            Some(_) => {}
            None if subject.production => found.push(NO_CEILING.note(
                format!("it would cost about ${cost:.2} per month, up to ${at_most:.2}; nothing says how much it may"),
                "a typing error in a number of nodes is paid for",
                "set PLATFLOW_COST_CEILING to US dollars by the month",
            )),
            None => {}
        }
        if !now.unpriced.is_empty() {
            found.push(UNPRICED.note(
                format!("no price is known for {}", now.unpriced.join(", ")),
                "the estimate leaves it out",
                "look it up before you rely on the sum",
            ));
        }
        found
    }
}
