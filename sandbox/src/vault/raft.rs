//! Raft as it shows from outside: joining, membership, elections, stepping down, and the timers behind them.

use super::message::{VaultReply, VaultRequest};
use super::model::{ACTIVATION, ELECTION, Leader, Member, RAFT_INDEX, STABILISATION, SealState, Servers, later};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

impl Servers {
    /// Lets every timer that is due fire, in order and each at its own moment, however far the clock jumped.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(due) = self.seen.and_then(|seen| self.next_due(seen)).filter(|due| *due < now) {
            self.fire(due);
            self.seen = Some(due);
        }
        self.fire(now);
        self.seen = Some(self.seen.map_or(now, |seen| seen.max(now)));
    }

    fn fire(&mut self, now: Timestamp) {
        let opening: Vec<String> = self
            .processes
            .iter()
            .filter(|(_, process)| matches!(process.seal, SealState::Opening { at } if at <= now))
            .map(|(storage, _)| storage.clone())
            .collect();
        for storage_id in opening {
            if let Some(process) = self.processes.get_mut(&storage_id) {
                process.seal = SealState::Open { since: now };
            }
            self.touch_storage(&storage_id);
            self.become_member(&storage_id, now);
        }
        let ids: Vec<String> = self.clusters.keys().cloned().collect();
        for id in ids {
            self.elect(&id, now);
        }
    }

    /// When the next timer fires, if one is set.
    #[must_use]
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let opening = self.processes.values().filter_map(|process| match process.seal {
            SealState::Opening { at } => Some(at),
            SealState::Sealed | SealState::Open { .. } => None,
        });
        let clusters = self.clusters.values().flat_map(|cluster| {
            let voting = cluster.members.values().map(|member| member.voter_at);
            let leading = match &cluster.leader {
                Some(leader) => leader.active_at,
                None => cluster.election_at,
            };
            voting.chain([leading])
        });
        opening.chain(clusters).filter(|at| *at > now).min()
    }

    fn become_member(&mut self, storage_id: &str, now: Timestamp) {
        let Some(id) = self.storages.get(storage_id).and_then(|storage| storage.cluster.clone()) else { return };
        let Some(address) = self.processes.get(storage_id).map(cluster_address) else { return };
        let extra = Duration::from_millis(self.next_random() % 5_000);
        let Some(cluster) = self.clusters.get_mut(&id) else { return };
        if !cluster.members.contains_key(storage_id) {
            let voter_at = later(now, STABILISATION + extra);
            cluster.members.insert(storage_id.to_owned(), Member { address, voter_at });
            self.touch_cluster(&id);
        }
    }

    /// Keeps a leader that still runs unsealed with a quorum behind it; elects another when the time has come.
    fn elect(&mut self, id: &str, now: Timestamp) {
        let Some(cluster) = self.clusters.get(id) else { return };
        let voters: Vec<&String> = cluster.voters(now).collect();
        let alive: Vec<String> =
            voters.iter().filter(|storage| self.pod_ready(storage)).map(|storage| (*storage).clone()).collect();
        let quorum = alive.len() > voters.len() / 2;
        let leader = cluster.leader.as_ref().map(|leader| leader.storage.clone());
        let election_at = cluster.election_at;
        let Some(cluster) = self.clusters.get_mut(id) else { return };
        match leader {
            Some(leader) if alive.contains(&leader) && quorum => {}
            Some(_) => {
                cluster.leader = None;
                cluster.election_at = later(now, ELECTION);
                self.touch_cluster(id);
            }
            None if quorum && election_at <= now => {
                if let Some(storage) = alive.into_iter().next() {
                    cluster.leader = Some(Leader { storage, active_at: later(now, ACTIVATION) });
                    self.touch_cluster(id);
                }
            }
            None => {}
        }
    }

    /// True when this server leads and serves.
    pub(super) fn is_active(&self, storage_id: &str, now: Timestamp) -> bool {
        self.cluster_of(storage_id)
            .and_then(|cluster| cluster.leader.as_ref())
            .is_some_and(|leader| leader.storage == storage_id && leader.active_at <= now)
    }

    /// The storage of the cluster's serving leader.
    pub(super) fn active_of(&self, storage_id: &str, now: Timestamp) -> Option<String> {
        let leader = self.cluster_of(storage_id)?.leader.as_ref()?;
        (leader.active_at <= now).then(|| leader.storage.clone())
    }

    pub(super) fn join(&mut self, storage_id: &str, request: &VaultRequest, now: Timestamp) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        if self.storages.get(storage_id).is_some_and(|storage| storage.cluster.is_some()) {
            return VaultReply::ok(&json!({ "joined": true }));
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let challenge = "failed to join raft cluster: failed to get raft challenge";
        let address = text("leader_api_addr");
        // Without a CA the leader's certificate is not trusted; why a join failed, only the server's log says.
        if address.is_empty() || address.starts_with("https://") && text("leader_ca_cert").is_empty() {
            return VaultReply::refuse(500, challenge);
        }
        let leader = self.at_address(storage_id, address).map(|process| process.pod.storage_id.clone());
        let Some(cluster) = leader
            .filter(|leader| self.pod_ready(leader) && self.active_of(leader, now).is_some())
            .and_then(|leader| self.storages.get(&leader))
            .and_then(|storage| storage.cluster.clone())
        else {
            return VaultReply::refuse(500, challenge);
        };
        if let Some(storage) = self.storages.get_mut(storage_id) {
            storage.cluster = Some(cluster);
            storage.half_made = false;
        }
        self.touch_storage(storage_id);
        VaultReply::ok(&json!({ "joined": true }))
    }

    pub(super) fn configuration(&self, storage_id: &str, now: Timestamp) -> VaultReply {
        let Some(cluster) = self.cluster_of(storage_id) else { return VaultReply::missing() };
        let leader = cluster.leader.as_ref().map(|leader| &leader.storage);
        let mut members: Vec<(&String, &Member)> = cluster.members.iter().collect();
        members.sort_by_key(|(_, member)| member.voter_at);
        let servers: Vec<Value> = members
            .into_iter()
            .map(|(storage, member)| {
                json!({
                    "node_id": self.storages.get(storage).map(|storage| storage.node_id.clone()),
                    "address": member.address, "leader": leader == Some(storage),
                    "protocol_version": "3", "voter": member.voter_at <= now
                })
            })
            .collect();
        VaultReply::data(&json!({ "config": { "index": RAFT_INDEX, "servers": servers } }))
    }

    pub(super) fn autopilot(&self, storage_id: &str, now: Timestamp) -> VaultReply {
        let Some(cluster) = self.cluster_of(storage_id) else { return VaultReply::missing() };
        let node =
            |storage: &String| self.storages.get(storage).map(|storage| storage.node_id.clone()).unwrap_or_default();
        let mut servers = serde_json::Map::new();
        for (storage, member) in &cluster.members {
            let status = match &cluster.leader {
                Some(leader) if leader.storage == *storage => "leader",
                _ if member.voter_at <= now => "voter",
                _ => "non-voter",
            };
            let alive = self.pod_ready(storage);
            let entry = json!({
                "id": node(storage), "name": node(storage), "address": member.address, "status": status,
                "healthy": alive, "node_status": if alive { "alive" } else { "failed" }, "node_type": "voter",
                "last_contact": "0s", "last_term": 3, "last_index": RAFT_INDEX, "stable_since": member.voter_at,
                "version": self.product(storage).version()
            });
            servers.insert(node(storage), entry);
        }
        let mut voters: Vec<String> = cluster.voters(now).map(node).collect();
        voters.sort_unstable();
        let alive = cluster.voters(now).filter(|storage| self.pod_ready(storage)).count();
        VaultReply::data(&json!({
            "healthy": cluster.members.keys().all(|storage| self.pod_ready(storage)),
            "failure_tolerance": alive.saturating_sub(voters.len() / 2 + 1),
            "leader": cluster.leader.as_ref().map(|leader| node(&leader.storage)),
            "voters": voters, "servers": servers
        }))
    }

    pub(super) fn remove_peer(&mut self, storage_id: &str, request: &VaultRequest, now: Timestamp) -> VaultReply {
        let body = match request.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let wanted = body.get("server_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(cluster) = self.cluster_of(storage_id) else { return VaultReply::missing() };
        let id = cluster.id.clone();
        let leader = cluster.leader.as_ref().map(|leader| leader.storage.clone());
        let named = |storage: &String| self.storages.get(storage).is_some_and(|found| found.node_id == wanted);
        let Some(storage) = cluster.members.keys().find(|storage| named(storage)).cloned() else {
            return VaultReply::empty();
        };
        if Some(&storage) == leader.as_ref() {
            return VaultReply::refuse(500, "failed to remove peer: this server does not let its leader be removed");
        }
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.members.remove(&storage);
        }
        self.touch_cluster(&id);
        self.advance(now);
        VaultReply::empty()
    }

    pub(super) fn step_down(&mut self, storage_id: &str, now: Timestamp) -> VaultReply {
        let Some(cluster) = self.cluster_of(storage_id) else { return VaultReply::missing() };
        let id = cluster.id.clone();
        let old = cluster.leader.as_ref().map(|leader| leader.storage.clone());
        let next =
            cluster.voters(now).find(|storage| Some(*storage) != old.as_ref() && self.pod_ready(storage)).cloned();
        if let (Some(storage), Some(cluster)) = (next, self.clusters.get_mut(&id)) {
            cluster.leader = Some(Leader { storage, active_at: later(now, Duration::from_secs(1)) });
            self.touch_cluster(&id);
        }
        VaultReply::empty()
    }
}

pub(super) fn cluster_address(process: &super::model::Process) -> String {
    format!("{}.vault-internal:8201", process.pod.name)
}

pub(super) fn api_address(process: &super::model::Process) -> String {
    format!("https://{}.vault-internal.{}.svc:8200", process.pod.name, process.pod.namespace)
}
