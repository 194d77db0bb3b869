//! One scenario from its first interaction to its last: requests in their order and at their distances, each answer compared.

use platflow_sandbox::kubernetes::Caller;
use serde_json::{Value, json};

use super::compare::Differences;
use super::known::Known;
use super::watching::Watch;
use super::world::{Answer, World};

/// How long a state that controllers bring about may take, virtual milliseconds: pods of the simulated nodes start in seconds, where
/// those of the recording took a fifth of one.
const PATIENCE_MS: i64 = 120_000;

/// How long a write may have to wait for the state it presupposes.
const WRITE_PATIENCE_MS: i64 = 30_000;

/// How finely a moment is looked for.
const EARLY_MS: i64 = 10;

/// What came of a scenario.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) compared: usize,
    /// Texts worded otherwise.
    pub(crate) worded: usize,
    pub(crate) differences: Vec<String>,
}

/// One replay under way; another scenario may go on in the same world.
pub(crate) struct Play {
    pub(crate) world: World,
    pub(crate) known: Known,
    watches: Vec<Watch>,
    bodies: Vec<(String, Value)>,
    verdict: Verdict,
    paused: bool,
    /// Objects that setup requests made, and that their recorder may have waited for.
    made: Vec<Value>,
}

impl Play {
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            known: Known::default(),
            watches: Vec::new(),
            bodies: Vec::new(),
            verdict: Verdict::default(),
            paused: false,
            made: Vec::new(),
        }
    }

    /// Plays a scenario.
    pub(crate) fn scenario(&mut self, scenario: &Value) -> Verdict {
        // Where the recorder had stopped the controllers, no time passes for them.
        self.paused = scenario["proves"].as_str().is_some_and(|text| text.contains("controller-manager was paused"));
        let mut ended = 0_i64;
        let interactions = scenario["interactions"].as_array().unwrap();
        for (index, each) in interactions.iter().enumerate() {
            let at = each["at_ms"].as_i64().unwrap_or(0);
            let gap = (at - ended).max(1);
            let watching = each["response"].get("events").is_some();
            let elapsed = each["elapsed_ms"].as_f64().filter(|_| !watching).unwrap_or(0.0);
            ended = ended.max(at + i64::from(elapsed.round().min(60_000.0) as i32));
            self.paused &= each["response"]["status"] != 200
                || each["request"]["path"].as_str().is_some_and(|path| !path.ends_with("/serviceaccounts/default"));
            self.interaction(each, gap);
            // Pods of the recording were ready after a fifth of a second: who waited so long had waited for them.
            let next = interactions.get(index + 1).and_then(|next| next["at_ms"].as_i64());
            if each["setup"] == true && next.is_some_and(|next| next - ended >= 250) {
                self.settle_all();
            }
        }
        self.finish_watches();
        std::mem::take(&mut self.verdict)
    }

    fn note(&mut self, number: i64, found: Vec<String>) {
        self.verdict.differences.extend(found.into_iter().map(|each| format!("#{number} {each}")));
    }

    fn interaction(&mut self, each: &Value, gap: i64) {
        let number = each["n"].as_i64().unwrap_or(0);
        let response = &each["response"];
        let request = self.request(each);
        let Some(caller) = self.caller(&request) else {
            self.note(number, vec!["no token was minted for it".to_owned()]);
            return;
        };
        if response.get("error").is_some() {
            self.note(number, vec!["the API server is down".to_owned()]);
            return;
        }
        if each.get("identical_polls_before").is_some() && gap >= 2_000 {
            self.too_early(number, &request, &caller, response, gap);
        }
        let watching = response.get("events").is_some();
        let setup = each["setup"] == true;
        if setup {
            self.world.pass(gap, &mut self.watches);
            self.wait_until_it_is_taken(&request, &caller);
        } else if watching {
            self.world.pass(gap, &mut self.watches);
        } else if !self.paused {
            self.wait_until_it_agrees(&request, &caller, response, gap);
        }
        let answer = self.world.ask(&request, caller, &mut self.watches);
        if setup {
            if answer.status >= 400 {
                self.note(number, vec![format!("setup answered {} {}", answer.status, answer.body)]);
            }
            self.known.learn_token(&request, &answer.body);
            self.settle(&answer.body);
            self.made.push(answer.body);
            return;
        }
        self.verdict.compared += 1;
        self.judge(number, each, &request, answer);
    }

    fn judge(&mut self, number: i64, each: &Value, request: &Value, mut answer: Answer) {
        let response = &each["response"];
        if response.get("events").is_some() {
            match answer.watch.take() {
                Some(subscription) => {
                    let mut watch = Watch {
                        number,
                        response: response.clone(),
                        subscription,
                        events: Vec::new(),
                        over: false,
                        broken: false,
                    };
                    self.world.pump(std::slice::from_mut(&mut watch));
                    self.watches.push(watch);
                }
                None => self.note(number, vec![format!("no watch: {} {}", answer.status, answer.body)]),
            }
            return;
        }
        let mut differences = Differences::new(&self.known);
        differences.write = request["method"] != "GET";
        differences.answer(response, &answer);
        let recorded = each["elapsed_ms"].as_f64().unwrap_or(0.0);
        // Anything shorter may be the load of the machine that recorded.
        if (1_900.0..5_000.0).contains(&recorded) || answer.held_ms > 0 {
            let held = f64::from(i32::try_from(answer.held_ms).unwrap());
            if !(0.5..2.0).contains(&(held / recorded)) {
                differences.found.push(format!("held {held} ms instead of {recorded}"));
            }
        }
        self.verdict.worded += differences.worded;
        let mut found = differences.found;
        self.known.check_versions(&response["body"], &answer.body, &mut found);
        let etag = answer.headers.iter().find(|(name, _)| name == "etag");
        if let (Some(was), Some((_, is))) = (response["headers"]["etag"].as_str(), etag) {
            self.known.stands_for(was, is);
        }
        self.known.learn(&response["body"], &answer.body);
        self.known.learn_token(request, &answer.body);
        self.note(number, found);
    }

    /// The request with the values of this replay in it.
    fn request(&mut self, each: &Value) -> Value {
        let mut request = each["request"].clone();
        let path = request["path"].as_str().unwrap_or_default().to_owned();
        self.find_pod(&path);
        if let Some((plain, query)) = path.split_once('?') {
            request["path"] = json!(plain);
            for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
                request["query"][&*key] = json!(value);
            }
        }
        match request.pointer("/body/$omitted").and_then(Value::as_str).map(str::to_owned) {
            Some(text) if text.starts_with("same body") => {
                let before = self.bodies.iter().rev().find(|(each, _)| *each == path);
                let mut body = before.map(|(_, body)| body.clone()).unwrap_or_default();
                if let Some((_, name)) = text.split_once("metadata.name ") {
                    body["metadata"]["name"] = json!(name);
                }
                request["body"] = body;
            }
            Some(text) => request["body"] = super::bodies::described(&text),
            None => self.bodies.push((path, request["body"].clone())),
        }
        let current = self.current_version();
        self.known.translate(&mut request, &current);
        if request.pointer("/body/spec/token") == Some(&json!("<redacted>"))
            && let Some(token) = self.known.any_token()
        {
            request["body"]["spec"]["token"] = json!(token);
        }
        request
    }

    fn current_version(&mut self) -> String {
        let list = json!({"method": "GET", "path": "/api/v1/namespaces", "query": {"limit": "1"}});
        let answer = self.world.ask(&list, master(), &mut self.watches);
        answer.body.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("0").to_owned()
    }

    fn caller(&self, request: &Value) -> Option<Caller> {
        let Some(auth) = request.get("auth").and_then(Value::as_str) else { return Some(master()) };
        if auth.starts_with("none") {
            return Some(Caller::Anonymous);
        }
        let Some((_, account)) = auth.split_once("system:serviceaccount:") else {
            return Some(Caller::Bearer("nonsense".to_owned()));
        };
        let account = account.split_whitespace().next().unwrap_or_default();
        self.known.token(account).map(|token| Caller::Bearer(token.to_owned()))
    }

    /// What every write into a new namespace waits for.
    fn settle(&mut self, body: &Value) {
        if body["kind"] != "Namespace" || body.pointer("/metadata/deletionTimestamp").is_some() {
            return;
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.pass_until(10, |world| world.object("", "serviceaccounts", &name, "default").is_some());
    }

    /// What a recorder waited for that did not go on at once: pods and what makes them.
    fn settle_all(&mut self) {
        for body in std::mem::take(&mut self.made) {
            let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            let (group, resource, condition) = match body["kind"].as_str() {
                Some("Deployment") => ("apps", "deployments", "Available"),
                Some("Pod") => ("", "pods", "Ready"),
                _ => continue,
            };
            if body.to_string().contains("never-ready") {
                continue;
            }
            self.pass_until(100, |world| {
                let object = world.object(group, resource, &namespace, &name).unwrap_or_default();
                let rows = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
                rows.iter().any(|each| each["type"] == condition && each["status"] == "True")
            });
        }
    }

    fn pass_until(&mut self, step_ms: i64, there: impl Fn(&World) -> bool) {
        let mut waited = 0;
        while waited < 60_000 && !there(&self.world) {
            self.world.pass(step_ms, &mut self.watches);
            waited += step_ms;
        }
    }

    /// A pod that a controller named: the recorder knew it from a list, here it is the next one that is not known yet.
    fn find_pod(&mut self, path: &str) {
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "api", "v1", "namespaces", namespace, "pods", name, ..] = parts.as_slice() else { return };
        if self.known.of(name).is_some() || self.world.object("", "pods", namespace, name).is_some() {
            return;
        }
        let list = json!({"method": "GET", "path": format!("/api/v1/namespaces/{namespace}/pods")});
        let mut waited = 0;
        while waited < WRITE_PATIENCE_MS {
            let pods = self.world.ask(&list, master(), &mut self.watches).body;
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            let ready = |pod: &&Value| {
                pod.pointer("/status/conditions").is_some_and(|rows| rows.to_string().contains("ContainersReady"))
            };
            let found = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").filter(ready).find_map(|pod| {
                let is = pod["metadata"]["name"].as_str().unwrap_or_default();
                (super::known::alike(name, is) && !self.known.is_taken(is)).then(|| is.to_owned())
            });
            if let Some(found) = found {
                self.known.stands_for(name, &found);
                return;
            }
            if pods.iter().all(|pod| !super::known::alike(name, pod["metadata"]["name"].as_str().unwrap_or_default()))
                && waited > 1_000
            {
                return;
            }
            self.world.pass(100, &mut self.watches);
            waited += 100;
        }
    }

    /// A write that sets the scene has to wait for what others set before it.
    fn wait_until_it_is_taken(&mut self, request: &Value, caller: &Caller) {
        let mut ahead = self.world.clone();
        let mut waited = 0;
        while waited <= WRITE_PATIENCE_MS {
            if ahead.clone().ask(request, caller.clone(), &mut []).status < 400 {
                self.world.pass(waited, &mut self.watches);
                return;
            }
            ahead.pass(100, &mut []);
            waited += 100;
        }
    }

    /// A read sees what controllers do when they have done it, and a write wants it done: time passes until the answer agrees. A read of
    /// what is so only for a moment may also come earlier than it did. Where none agrees, the first answer counts.
    fn wait_until_it_agrees(&mut self, request: &Value, caller: &Caller, response: &Value, gap: i64) {
        let read = request["method"] == "GET";
        let patience = if read { PATIENCE_MS } else { WRITE_PATIENCE_MS };
        let mut ahead = self.world.clone();
        ahead.pass(gap, &mut []);
        let mut waited = 0;
        while waited <= patience {
            if self.agrees(&ahead, request, caller, response) {
                self.world.pass(gap + waited, &mut self.watches);
                return;
            }
            let step = (waited / 5).clamp(20, 2_000);
            ahead.pass(step, &mut []);
            waited += step;
        }
        let mut ahead = self.world.clone();
        for early in (EARLY_MS..gap).step_by(usize::try_from(EARLY_MS).unwrap()).take_while(|_| read) {
            ahead.pass(EARLY_MS, &mut []);
            if self.agrees(&ahead, request, caller, response) {
                self.world.pass(early, &mut self.watches);
                return;
            }
        }
        self.world.pass(gap, &mut self.watches);
    }

    fn agrees(&self, world: &World, request: &Value, caller: &Caller, response: &Value) -> bool {
        let answer = world.clone().ask(request, caller.clone(), &mut []);
        let mut differences = Differences::new(&self.known);
        differences.write = request["method"] != "GET";
        differences.answer(response, &answer);
        let mut found = differences.found;
        self.known.clone().check_versions(&response["body"], &answer.body, &mut found);
        found.is_empty()
    }

    /// What was seen only after seconds of polling must not be there in a quarter of that time.
    fn too_early(&mut self, number: i64, request: &Value, caller: &Caller, response: &Value, gap: i64) {
        let mut ahead = self.world.clone();
        ahead.pass(gap / 4, &mut []);
        if self.agrees(&ahead, request, caller, response) {
            self.note(number, vec![format!("is there already after {} ms", gap / 4)]);
        }
    }

    fn finish_watches(&mut self) {
        let mut waited = 0;
        while waited < PATIENCE_MS && self.watches.iter().any(|watch| !self.done(watch)) {
            self.world.pass(500, &mut self.watches);
            waited += 500;
        }
        for watch in std::mem::take(&mut self.watches) {
            let found = watch.compare(&self.known);
            self.verdict.differences.extend(found);
        }
    }

    fn done(&self, watch: &Watch) -> bool {
        watch.over || watch.closed_by_client() && watch.compare(&self.known).is_empty()
    }
}

pub(crate) fn master() -> Caller {
    Caller::User { name: "admin".to_owned(), groups: vec!["system:masters".to_owned()] }
}
