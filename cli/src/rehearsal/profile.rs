//! Fault profiles: which calls of a run a cloud in a bad mood disturbs, drawn from a seed. Pure.

use platflow_sandbox::faults::Rule;
use std::collections::BTreeMap;

/// A small generator: the same seed gives the same faults on every machine and in every version.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(below.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// One draw from a text and a number.
pub(crate) fn drawn(text: &str, below: usize) -> usize {
    let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Draw(seed).next(below)
}

/// What each profile does to a call: `{service}` is one of AWS's.
fn effects(profile: &str) -> &'static [&'static str] {
    match profile {
        "throttled" => &["throttle*2"],
        "flaky" => &["error:InternalError:500*1", "error:ServiceUnavailable:503*2", "cut_before*1"],
        _ => &["lose_reply*1"],
    }
}

/// The rules of a profile for a run that makes these calls (`service:operation`, how often).
pub(crate) fn rules(profile: &str, seed: u64, calls: &BTreeMap<String, u64>) -> Vec<Rule> {
    let mut draw = Draw(seed);
    let names: Vec<(&str, &str, u64)> = calls
        .iter()
        .filter_map(|(name, count)| {
            let (service, operation) = name.split_once(':')?;
            // Requests to API servers and Vault are matched by their method.
            Some((service, operation.split(' ').next().unwrap_or(operation), *count))
        })
        .filter(|(service, ..)| profile == "flaky" || !matches!(*service, "kubernetes" | "vault"))
        .collect();
    let effects = effects(profile);
    let wanted = names.len().min(12);
    let mut rules = Vec::new();
    for _ in 0..wanted {
        let Some((service, operation, count)) = names.get(draw.next(names.len())) else { break };
        let nth = 1 + draw.next(usize::try_from(*count).unwrap_or(1));
        let aws = !matches!(*service, "kubernetes" | "vault");
        let effect = if aws { effects.get(draw.next(effects.len())) } else { effects.first() };
        let Some(effect) = effect else { break };
        if let Ok(rule) = format!("{service}:{operation}#{nth}={effect}").parse::<Rule>() {
            rules.push(rule);
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed draws the same rules, another one others, and every effect of every profile can be read.
    #[test]
    fn profiles_are_drawn_from_their_seed() {
        let calls = BTreeMap::from([("ec2:CreateVpc".to_owned(), 1), ("vault:PUT sys/init".to_owned(), 3), ("eks:CreateCluster".to_owned(), 2)]);
        for profile in crate::rehearsal::case::PROFILES {
            let rules = |seed| rules(profile, seed, &calls);
            assert_eq!(rules(7), rules(7));
            assert!((0..20).any(|seed| rules(seed) != rules(7)));
            assert_eq!(rules(7).len(), if profile == "flaky" { 3 } else { 2 });
        }
    }
}
