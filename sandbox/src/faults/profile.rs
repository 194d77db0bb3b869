//! Named, seeded mixtures of faults. A decision depends on the profile, the seed, and how often this very call was made
//! for this very resource: not on what else happens meanwhile, so concurrency changes nothing.
//!
//! Counts are kept in memory: a restarted server begins to count anew.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use super::{Called, Effect};

/// The profiles by name, and what each does.
pub const PROFILES: [(&str, &str); 5] = [
    ("calm", "nothing but what is always so: asynchronous states, young roles unknown for seconds"),
    ("eventual", "reads lag up to a minute behind, roles are unknown to other services for up to a minute"),
    (
        "flaky",
        "errors of the services, connections cut, replies lost, requests delivered twice, a restarting API server",
    ),
    ("throttled", "a quarter of the calls to AWS is refused for too many calls, and some to the API server"),
    ("hostile", "all of these at once, short capacity, degraded add-ons and restarting pods among them"),
];

/// A profile and its seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    name: String,
    seed: u64,
    #[serde(skip)]
    seen: BTreeMap<u64, Seen>,
}

/// How often a call was made, and how often in a row it went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen {
    count: u64,
    in_a_row: u32,
}

/// No call goes wrong more often than this in a row: the profile disturbs, it does not prevent.
const MOST_IN_A_ROW: u32 = 3;

/// A profile that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault profile: it reads PROFILE[:SEED] with calm, eventual, flaky, throttled or hostile")]
pub struct BadProfile(String);

impl std::str::FromStr for Profile {
    type Err = BadProfile;

    fn from_str(text: &str) -> Result<Self, BadProfile> {
        let bad = || BadProfile(text.to_owned());
        let (name, seed) = match text.split_once(':') {
            Some((name, seed)) => (name, seed.parse().map_err(|_| bad())?),
            None => (text, 1),
        };
        let known = PROFILES.iter().any(|(known, _)| *known == name);
        known.then(|| Self { name: name.to_owned(), seed, seen: BTreeMap::new() }).ok_or_else(bad)
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.name, self.seed)
    }
}

/// Numbers that follow from a text alone.
struct Dice {
    bytes: Vec<u8>,
    at: usize,
}

impl Dice {
    fn new(of: &str) -> Self {
        Self { bytes: Sha256::digest(of.as_bytes()).to_vec(), at: 0 }
    }

    /// A number below 1000.
    fn permille(&mut self) -> u64 {
        let pair = self.bytes.get(self.at..self.at + 2).map(|pair| pair.iter().fold(0, |n, b| n * 256 + u64::from(*b)));
        self.at += 2;
        pair.unwrap_or(0) * 1_000 / 65_536
    }

    fn below(&mut self, permille: u64) -> bool {
        self.permille() < permille
    }

    /// A number of milliseconds up to a bound.
    fn up_to(&mut self, bound_ms: i64) -> i64 {
        bound_ms * i64::try_from(self.permille()).unwrap_or(0) / 1_000
    }
}

/// How likely what is, per thousand calls.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    read_lag: u64,
    propagation: u64,
    throttle: u64,
    server_error: u64,
    cut_before: u64,
    lose_reply: u64,
    duplicate: u64,
    delay: u64,
    api_server_restarts: u64,
    degraded: u64,
    pod_restarts: u64,
}

fn rates(profile: &str) -> Rates {
    let flaky = Rates {
        server_error: 50,
        cut_before: 40,
        lose_reply: 50,
        duplicate: 30,
        delay: 30,
        api_server_restarts: 4,
        ..Rates::default()
    };
    match profile {
        "eventual" => Rates { read_lag: 350, propagation: 800, ..Rates::default() },
        "flaky" => flaky,
        "throttled" => Rates { throttle: 250, ..Rates::default() },
        "hostile" => Rates { read_lag: 250, propagation: 800, throttle: 80, degraded: 500, pod_restarts: 150, ..flaky },
        _ => Rates::default(),
    }
}

/// Services whose reads come from copies that lag behind; EKS and the API server answer from the one truth.
fn lags(service: &str) -> bool {
    matches!(service, "ec2" | "iam" | "kms" | "logs" | "tagging" | "elasticloadbalancing" | "autoscaling")
}

impl Profile {
    /// What happens to a call of an operation for a resource.
    pub fn draw(&mut self, call: Called<'_>, resource: &str) -> Option<Effect> {
        if self.name == "calm" {
            return None;
        }
        let name = format!("{}|{}|{resource}", call.service, call.operation);
        let digest = Sha256::digest(name.as_bytes());
        let key = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        let seen = self.seen.entry(key).or_default();
        seen.count += 1;
        let mut dice = Dice::new(&format!("{}|{}|{name}|{}", self.name, self.seed, seen.count));
        let effect = effect(rates(&self.name), call, &mut dice)
            .filter(|effect| !effect.disturbs() || seen.in_a_row < MOST_IN_A_ROW);
        seen.in_a_row = if effect.as_ref().is_some_and(Effect::disturbs) { seen.in_a_row + 1 } else { 0 };
        effect
    }
}

fn effect(rates: Rates, call: Called<'_>, dice: &mut Dice) -> Option<Effect> {
    let mesh = call.service == "vault";
    // An API server is asked a hundred times where a service is asked once, and answers more reliably.
    let share = |rate: u64| if call.service == "kubernetes" { rate / 4 } else { rate };
    // Each kind of fault has its own throw, whether it can apply or not: another rate changes no other decision.
    let throws = [
        (
            share(rates.throttle) / if call.service == "kubernetes" { 5 } else { 1 },
            call.service != "sts" && !mesh,
            Effect::Throttle,
        ),
        (share(rates.server_error), true, Effect::ServerError),
        (share(rates.cut_before), true, Effect::CutBefore),
        (share(rates.lose_reply), call.mutates, Effect::LoseReply),
        (share(rates.duplicate), call.mutates && !mesh, Effect::Duplicate),
        (rates.api_server_restarts, call.service == "kubernetes", Effect::ApiServerRestarts { seconds: 20 }),
        (rates.pod_restarts, mesh && call.operation == "PUT", Effect::PodRestarts),
        (rates.degraded, call.operation == "CreateAddon", Effect::AddonDegraded { seconds: 240 }),
        (rates.degraded, call.operation == "CreateNodegroup", Effect::ShortOfCapacity { seconds: 300 }),
    ];
    let mut drawn = None;
    for (rate, applies, effect) in throws {
        let hit = dice.below(rate);
        if hit && applies && drawn.is_none() {
            drawn = Some(effect);
        }
    }
    let (lag, delay, propagation) =
        (dice.below(rates.read_lag), dice.below(rates.delay), dice.below(rates.propagation));
    let length_ms = dice.up_to(60_000);
    drawn
        .or_else(|| {
            (propagation && call.operation == "CreateRole").then_some(Effect::IamPropagation { lag_ms: length_ms })
        })
        .or_else(|| (lag && !call.mutates && lags(call.service)).then_some(Effect::ReadLag { lag_ms: length_ms }))
        .or_else(|| delay.then(|| Effect::Delay { delay_ms: length_ms.unsigned_abs() / 400 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(profile: &str, order: &[(&str, &str, &str)]) -> BTreeMap<String, Vec<Option<Effect>>> {
        let mut profile: Profile = profile.parse().unwrap();
        let mut drawn: BTreeMap<String, Vec<Option<Effect>>> = BTreeMap::new();
        for (service, operation, resource) in order {
            let mutates = !operation.starts_with("Describe");
            let effect = profile.draw(Called { service, operation, mutates }, resource);
            drawn.entry(format!("{service} {operation} {resource}")).or_default().push(effect);
        }
        drawn
    }

    /// Proves that the same seed decides the same for each call and resource in whatever order the calls come, and that
    /// another seed decides otherwise.
    #[test]
    fn order_does_not_matter_and_seeds_do() {
        let calls: Vec<(&str, &str, &str)> = (0..300)
            .map(|n| match n % 3 {
                0 => ("ec2", "CreateSubnet", "network.a"),
                1 => ("ec2", "DescribeSubnets", "network.a"),
                _ => ("eks", "CreateNodegroup", "data"),
            })
            .collect();
        let mut sorted = calls.clone();
        sorted.sort_unstable();
        for profile in ["eventual", "flaky", "throttled", "hostile"] {
            let seeded = format!("{profile}:7");
            assert_eq!(sequence(&seeded, &calls), sequence(&seeded, &sorted), "{profile}");
            assert_ne!(sequence(&seeded, &calls), sequence(&format!("{profile}:8"), &calls), "{profile}");
        }
        assert!(sequence("calm", &calls).values().flatten().all(Option::is_none));
    }

    /// Proves that no profile stops a call for good: at most three disturbances follow each other.
    #[test]
    fn disturbances_end() {
        for (profile, _) in PROFILES {
            for seed in 0..20 {
                let mut profile: Profile = format!("{profile}:{seed}").parse().unwrap();
                let call = Called { service: "ec2", operation: "CreateVpc", mutates: true };
                let drawn: Vec<bool> =
                    (0..500).map(|_| profile.draw(call, "vpc").is_some_and(|effect| effect.disturbs())).collect();
                assert!(!drawn.windows(4).any(|four| four.iter().all(|one| *one)), "{profile}");
            }
        }
    }

    /// Names that are no profile are refused with those that are.
    #[test]
    fn unknown_profiles_are_refused() {
        for bad in ["", "wild", "hostile:", "hostile:x"] {
            assert!(bad.parse::<Profile>().unwrap_err().to_string().contains("eventual"), "{bad}");
        }
        assert_eq!("hostile:3".parse::<Profile>().unwrap().to_string(), "hostile:3");
    }
}
