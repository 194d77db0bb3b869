//! The monthly cost of what a run built, from the dated price table in the binary.
//!
//! An estimate for the operator's summary: list prices, no data transfer, no discounts. It asks no price API.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

const TABLE: &str = include_str!("../prices.json");

/// The price table as it lies in the repository.
#[derive(Debug, Deserialize)]
struct PriceTable {
    date: String,
    region: String,
    hours_per_month: f64,
    lines: Vec<PriceLine>,
}

#[derive(Debug, Deserialize)]
struct PriceLine {
    item: String,
    price: f64,
    spot: Option<f64>,
}

/// One line of the estimate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CostLine {
    /// The step that causes it.
    pub(crate) step: String,
    /// What is paid for.
    pub(crate) item: String,
    /// How many.
    pub(crate) quantity: f64,
    /// US dollars per month.
    pub(crate) monthly_usd: f64,
}

/// What the built resources cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Estimate {
    /// Date of the price table.
    pub(crate) prices_of: String,
    /// The region whose list prices these are.
    pub(crate) prices_region: String,
    /// Line by line.
    pub(crate) lines: Vec<CostLine>,
    /// What the table has no price for.
    pub(crate) unpriced: Vec<String>,
    /// Sum per month in US dollars.
    pub(crate) monthly_usd: f64,
}

/// A verified step as the estimate needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Built<'a> {
    /// Its path name.
    pub(crate) step: &'a str,
    /// Its kind.
    pub(crate) kind: &'a str,
    /// Its evaluated spec.
    pub(crate) spec: &'a Value,
    /// Its outputs.
    pub(crate) outputs: &'a Value,
}

struct Estimator {
    prices: BTreeMap<String, PriceLine>,
    hours: f64,
    lines: Vec<CostLine>,
    unpriced: Vec<String>,
}

impl Estimator {
    fn add(&mut self, step: &str, item: &str, quantity: f64, spot: bool) {
        let Some(line) = self.prices.get(item) else {
            self.unpriced.push(format!("{step}: {item}"));
            return;
        };
        let hourly = if spot { line.spot.unwrap_or(line.price) } else { line.price };
        let per_month = if item == "gp3" { hourly } else { hourly * self.hours };
        let item = if spot { format!("{item} (spot)") } else { item.to_owned() };
        self.lines.push(CostLine { step: step.to_owned(), item, quantity, monthly_usd: quantity * per_month });
    }

    fn node_group(&mut self, built: Built<'_>, disks: &BTreeMap<&str, f64>) {
        let nodes = built.spec.get("desired").and_then(Value::as_f64).unwrap_or(0.0);
        let spot = built.spec.get("capacity").and_then(Value::as_str) == Some("SPOT");
        let first_type = built.spec.get("instance_types").and_then(Value::as_array).and_then(|types| types.first());
        if let Some(instance_type) = first_type.and_then(Value::as_str) {
            self.add(built.step, instance_type, nodes, spot);
        }
        let template = built.spec.get("launch_template_id").and_then(Value::as_str);
        if let Some(disk_gib) = template.and_then(|id| disks.get(id)) {
            self.add(built.step, "gp3", nodes * disk_gib, false);
        }
    }
}

/// Estimates the monthly cost of what was built.
///
/// # Errors
/// Only if the table in the binary is malformed.
pub(crate) fn estimate(built: &[Built<'_>]) -> Result<Estimate, serde_json::Error> {
    let table: PriceTable = serde_json::from_str(TABLE)?;
    let disks: BTreeMap<&str, f64> = built
        .iter()
        .filter(|step| step.kind == "aws.launch_template")
        .filter_map(|step| {
            let id = step.outputs.get("launch_template_id")?.as_str()?;
            Some((id, step.spec.get("disk_gib")?.as_f64()?))
        })
        .collect();
    let mut estimator = Estimator {
        prices: table.lines.into_iter().map(|line| (line.item.clone(), line)).collect(),
        hours: table.hours_per_month,
        lines: Vec::new(),
        unpriced: Vec::new(),
    };
    for step in built {
        match step.kind {
            "aws.eks_cluster" => estimator.add(step.step, "eks-control-plane", 1.0, false),
            "aws.nat_gateway" => estimator.add(step.step, "nat-gateway", 1.0, false),
            "aws.elastic_ip" => estimator.add(step.step, "public-ipv4", 1.0, false),
            "aws.node_group" => estimator.node_group(*step, &disks),
            _ => {}
        }
    }
    let monthly_usd = estimator.lines.iter().map(|line| line.monthly_usd).sum();
    Ok(Estimate {
        prices_of: table.date,
        prices_region: table.region,
        lines: estimator.lines,
        unpriced: estimator.unpriced,
        monthly_usd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Proves that the estimate of the development platform's nodes equals the table's own arithmetic, SPOT and on
    /// demand, disks included, and that a type without a price is named instead of counted as free.
    #[test]
    fn nodes_disks_and_gateways_are_priced() {
        let template = json!({"launch_template_id": "lt-1"});
        let steps = [
            ("network.eip", "aws.elastic_ip", json!({}), json!({})),
            ("network.nat", "aws.nat_gateway", json!({}), json!({})),
            ("cluster.control", "aws.eks_cluster", json!({}), json!({})),
            ("system.template", "aws.launch_template", json!({"disk_gib": 100}), template.clone()),
            (
                "system.group",
                "aws.node_group",
                json!({"desired": 3, "capacity": "ON_DEMAND", "instance_types": ["t3.large"], "launch_template_id": "lt-1"}),
                json!({}),
            ),
            (
                "apps.group",
                "aws.node_group",
                json!({"desired": 3, "capacity": "SPOT", "instance_types": ["t3.xlarge", "t3a.xlarge"]}),
                json!({}),
            ),
            ("odd.group", "aws.node_group", json!({"desired": 1, "instance_types": ["z9.huge"]}), json!({})),
        ];
        let built: Vec<Built<'_>> =
            steps.iter().map(|(step, kind, spec, outputs)| Built { step, kind, spec, outputs }).collect();
        let estimate = estimate(&built).expect("the table parses");
        let wanted = 0.005 * 730.0 + 0.045 * 730.0 + 73.0 + 3.0 * 0.0832 * 730.0 + 300.0 * 0.08 + 3.0 * 0.06222 * 730.0;
        assert!((estimate.monthly_usd - wanted).abs() < 0.01, "{} instead of {wanted}", estimate.monthly_usd);
        assert_eq!(estimate.unpriced, ["odd.group: z9.huge"]);
    }
}
