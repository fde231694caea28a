//! What a soak has done and seen.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{Victim, resources::Holdings};

/// Figures of a soak until now.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Plays the same order of disturbances again.
    pub seed: u64,
    /// For how long it ran.
    pub seconds: u64,
    /// Requests of the load that were answered, each compared with what was sent.
    pub answered: u64,
    /// Of the load that is only counted, by the rate that was kept up, a second.
    pub rate: u32,
    /// Requests that failed although nobody was killed. It must be 0.
    pub lost: u64,
    /// Tries of those who may not connect, none of which got a byte.
    pub refused: u64,
    /// Packets between the nodes that were judged.
    pub packets: u64,
    /// Their payload, in bytes.
    pub wire_bytes: u64,
    /// Bytes of transfers that were hashed at both ends, and that the counters agree with.
    pub audited_bytes: u64,
    /// `kill -9`, by role.
    pub kills: BTreeMap<String, usize>,
    /// How long recovery took after each round of them, in milliseconds.
    pub recoveries_ms: Vec<u64>,
    /// Agents that took over from others.
    pub takeovers: usize,
    /// Times that control was replaced.
    pub control_replaced: usize,
    /// Policies that were added, felt, and removed.
    pub policy_changes: usize,
    /// The longest time that one took to be felt, in milliseconds.
    pub policy_felt_ms: u64,
    /// Pods that came, were served, and went.
    pub pods: usize,
    /// Broken manifests.
    pub bad_inputs: usize,
    /// Certificates that were seen to be renewed.
    pub certificates: usize,
    /// What processes held once they had warmed up.
    pub warm: Holdings,
    /// The same processes, as they were last looked at.
    pub last: Holdings,
}

impl Report {
    pub(super) fn killed(&mut self, victim: Victim) {
        *self.kills.entry(victim.to_string()).or_default() += 1;
    }

    pub(super) fn recovered(&mut self, took: Duration) {
        self.recoveries_ms.push(milliseconds(took));
    }

    pub(super) fn felt(&mut self, took: Duration) {
        self.policy_changes += 1;
        self.policy_felt_ms = self.policy_felt_ms.max(milliseconds(took));
    }

    /// Half of the recoveries were over within that time; 0 if there was none.
    #[must_use]
    pub fn median_recovery(&self) -> Duration {
        let mut sorted = self.recoveries_ms.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2);
        Duration::from_millis(median.copied().unwrap_or(0))
    }

    /// The longest; 0 if there was none.
    #[must_use]
    pub fn longest_recovery(&self) -> Duration {
        Duration::from_millis(self.recoveries_ms.iter().copied().max().unwrap_or(0))
    }

    /// Whether everything of which a soak is made has happened.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let counts = [
            self.takeovers,
            self.control_replaced,
            self.policy_changes,
            self.pods,
            self.bad_inputs,
            self.certificates,
            self.kills.values().sum(),
        ];
        counts.iter().all(|count| *count > 0)
    }

    /// The figures in words: what, and how much.
    #[must_use]
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let kills: Vec<_> = self
            .kills
            .iter()
            .map(|(who, n)| format!("{who} {n}"))
            .collect();
        let held = self.warm.iter().filter_map(|(name, before)| {
            let after = self.last.get(name)?;
            Some(format!(
                "{name} {} -> {} KiB, {} -> {} descriptors",
                before.memory, after.memory, before.descriptors, after.descriptors
            ))
        });
        vec![
            (
                "load held",
                format!(
                    "{} requests compared, {} a second more; {} lost but by kill -9",
                    self.answered, self.rate, self.lost
                ),
            ),
            ("strangers", format!("{} tries, none served", self.refused)),
            (
                "wire",
                format!(
                    "{} packets, {} bytes, all TLS",
                    self.packets, self.wire_bytes
                ),
            ),
            (
                "bytes",
                format!(
                    "{} equal at both ends and in the counters",
                    self.audited_bytes
                ),
            ),
            (
                "kill -9",
                format!(
                    "{}; recovered in {:?} (median), {:?} (longest)",
                    kills.join(", "),
                    self.median_recovery(),
                    self.longest_recovery()
                ),
            ),
            (
                "upgrades",
                format!(
                    "{} agents with waypoint, {} controls",
                    self.takeovers, self.control_replaced
                ),
            ),
            (
                "policies",
                format!(
                    "{} changes, felt within {} ms",
                    self.policy_changes, self.policy_felt_ms
                ),
            ),
            ("pods", format!("{} came and went", self.pods)),
            ("bad inputs", format!("{}, all told of", self.bad_inputs)),
            ("certificates", format!("{} renewed", self.certificates)),
            ("memory", held.collect::<Vec<_>>().join("; ")),
        ]
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
