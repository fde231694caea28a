//! What is measured, in which order, and what can't be. Pure: nothing is started here.

mod scenario;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lab::Generator;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

pub(super) use self::scenario::Scenario;
use super::measurement::{BASELINE, Missing, Placement};

/// Fixed, so that the same options give the same order.
const SEED: u64 = 15008;
/// The shortest time that a load runs if nothing else is said: below it, starting counts.
const SHORTEST: Duration = Duration::from_millis(300);
/// The longest: more rounds are worth more than longer ones.
const LONGEST: Duration = Duration::from_secs(3);

/// What the user wants, checked as far as one option can be checked alone.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// How long all of it should take, set-up included.
    pub(super) budget: Duration,
    /// When to leave the rest out, on a machine that is slower or busier than was estimated.
    pub(super) limit: Option<Duration>,
    pub(super) rounds: u32,
    /// How long one load runs; without it, what the budget allows.
    pub(super) seconds: Option<Duration>,
    /// Empty: all.
    pub(super) only: Vec<Scenario>,
    /// Empty: all.
    pub(super) modes: Vec<String>,
    /// Requests per second of the scenarios with an arrival rate.
    pub(super) rates: Vec<u32>,
    /// Numbers of idle pods whose proxies' memory is measured, rising.
    pub(super) pods: Vec<u32>,
    /// How many connections are held idle.
    pub(super) idle: u16,
    /// Who makes the load.
    pub(super) generator: Generator,
}

/// A kind of sidecar, and whether it is there.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) mode: String,
    /// Whether it passes on nothing but HTTP.
    pub(super) is_http: bool,
    /// Why not, with the cure.
    pub(super) missing: Option<String>,
}

/// What stands in the path of a lab's connections. Each has a lab of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// Nothing.
    Direct,
    /// A proxy in each pod, of the kind with this mode.
    Sidecar(String),
    /// The same, of a kind that passes on nothing but HTTP.
    HttpSidecar(String),
    /// An agent on each node.
    Ambit,
    /// The same, told to carry connections between pods of its node itself.
    AmbitProxied,
    /// The same, and a waypoint on the server's node, which routes requests.
    AmbitWaypoint,
}

/// One thing to measure once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) scenario: Scenario,
    /// From 1. Ratios pair steps of the same round.
    pub(super) round: u32,
    /// Index into [`Plan::subjects`].
    pub(super) subject: usize,
    pub(super) placement: Option<Placement>,
}

/// All of a run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) subjects: Vec<Subject>,
    /// Scenario by scenario; in each, round by round; in each, all subjects in an order that
    /// changes, so that no mode always has the same predecessor or the same part of a slow minute.
    pub(super) steps: Vec<Step>,
    pub(super) missing: Vec<Missing>,
    /// How long each load runs.
    pub(super) load_time: Duration,
    /// As [`Wanted::limit`].
    pub(super) limit: Option<Duration>,
    pub(super) rounds: u32,
    /// As [`Wanted::pods`].
    pub(super) pods: Vec<u32>,
}

impl Subject {
    fn of(offer: &Offer) -> Subject {
        let mode = offer.mode.clone();
        if offer.is_http {
            Subject::HttpSidecar(mode)
        } else {
            Subject::Sidecar(mode)
        }
    }

    /// The name of the mode that its figures get.
    pub(super) fn mode(&self) -> &str {
        match self {
            Subject::Direct => BASELINE,
            Subject::Sidecar(mode) | Subject::HttpSidecar(mode) => mode,
            Subject::Ambit => "ambit",
            Subject::AmbitProxied => "ambit-proxied",
            Subject::AmbitWaypoint => "ambit+waypoint",
        }
    }

    /// Where its clients and servers are. What reads HTTP is measured between nodes alone: a waypoint
    /// is seldom on the node of both.
    pub(super) fn placements(&self) -> &'static [Placement] {
        match self {
            Subject::HttpSidecar(_) | Subject::AmbitWaypoint => &[Placement::CrossNode],
            Subject::Direct | Subject::Sidecar(_) | Subject::Ambit | Subject::AmbitProxied => {
                &[Placement::SameNode, Placement::CrossNode]
            }
        }
    }

    /// Whether there is something of its own to measure. `None` is for figures of all nodes together.
    fn is_measured(&self, scenario: Scenario, placement: Option<Placement>) -> bool {
        match self {
            Subject::AmbitProxied => placement == Some(Placement::SameNode),
            Subject::HttpSidecar(_) | Subject::AmbitWaypoint => {
                scenario.is_http() && placement.is_none_or(|it| self.placements().contains(&it))
            }
            Subject::Direct | Subject::Sidecar(_) | Subject::Ambit => {
                !matches!(scenario, Scenario::Idle(_))
            }
        }
    }
}

impl Plan {
    /// Decides what is measured.
    ///
    /// # Errors
    /// A mode isn't one of those that there are, or nothing is left to measure.
    pub(super) fn make(wanted: &Wanted, offers: &[Offer]) -> Result<Plan> {
        check_modes(&wanted.modes, offers)?;
        let is_wanted = |mode: &str| {
            wanted.modes.is_empty() || wanted.modes.iter().any(|wanted| wanted == mode)
        };
        let mut missing = missing(offers, is_wanted);
        let present = offers.iter().filter(|offer| offer.missing.is_none());
        let subjects: Vec<Subject> = [Subject::Direct]
            .into_iter()
            .chain(present.map(Subject::of))
            .chain([
                Subject::AmbitProxied,
                Subject::Ambit,
                Subject::AmbitWaypoint,
            ])
            .filter(|subject| is_wanted(subject.mode()))
            .collect();

        let mut steps = Vec::new();
        let mut random = StdRng::seed_from_u64(SEED);
        for scenario in scenario::wanted(&wanted.only, &wanted.rates, wanted.idle) {
            if !scenario.made_by(wanted.generator) {
                missing.push(Missing {
                    mode: "every mode".to_owned(),
                    scenario: Some(scenario.to_string()),
                    reason: format!("{:?} doesn't make this load", wanted.generator),
                });
                continue;
            }
            let cells = cells(scenario, &subjects);
            // Memory is read off processes that stay: more rounds would say nothing more.
            let rounds = match scenario {
                Scenario::Memory | Scenario::Idle(_) => 1,
                _ => wanted.rounds,
            };
            for round in 1..=rounds {
                let mut cells = cells.clone();
                cells.shuffle(&mut random);
                steps.extend(cells.iter().map(|(subject, placement)| Step {
                    scenario,
                    round,
                    subject: *subject,
                    placement: *placement,
                }));
            }
        }
        if steps.is_empty() {
            let reasons: Vec<_> = missing
                .iter()
                .map(|missing| format!("; {}: {}", missing.mode, missing.reason))
                .collect();
            bail!("nothing is left to measure{}", reasons.concat());
        }
        let mut plan = Plan {
            subjects,
            steps,
            missing,
            load_time: Duration::ZERO,
            limit: wanted.limit,
            rounds: wanted.rounds,
            pods: wanted.pods.clone(),
        };
        plan.load_time = wanted
            .seconds
            .unwrap_or_else(|| plan.affordable(wanted.budget));
        Ok(plan)
    }

    /// How long a step takes, about: for the budget, and for the progress display.
    pub(super) fn estimate(&self, step: &Step) -> Duration {
        step.scenario.overhead(&self.pods)
            + if step.scenario.load().is_some() {
                self.load_time
            } else {
                Duration::ZERO
            }
    }

    /// Whether the first connection to each of many servers is measured of a subject.
    pub(super) fn has_cold(&self, subject: usize) -> bool {
        let mut own = self.steps.iter().filter(|step| step.subject == subject);
        own.any(|step| step.scenario == Scenario::ConnectCold)
    }

    /// How long it takes to make a subject's lab, to start what it has, and to see that it works,
    /// about.
    pub(super) fn set_up(&self, subject: usize) -> Duration {
        Duration::from_secs(if self.has_cold(subject) { 7 } else { 3 })
    }

    /// How long all of it takes, about.
    pub(super) fn total(&self) -> Duration {
        let set_up = (0..self.subjects.len()).map(|subject| self.set_up(subject));
        set_up.sum::<Duration>()
            + self
                .steps
                .iter()
                .map(|step| self.estimate(step))
                .sum::<Duration>()
    }

    /// How long each load may run for the whole to stay in the budget; `load_time` isn't set yet.
    fn affordable(&self, budget: Duration) -> Duration {
        let loads = self
            .steps
            .iter()
            .filter(|step| step.scenario.load().is_some())
            .count();
        let each = budget.saturating_sub(self.total()) / u32::try_from(loads.max(1)).unwrap_or(1);
        each.clamp(SHORTEST, LONGEST)
    }
}

/// Each combination of a scenario that is measured: index of the subject, and placement.
fn cells(scenario: Scenario, subjects: &[Subject]) -> Vec<(usize, Option<Placement>)> {
    let mut cells = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        if *subject == Subject::Direct && scenario.needs_proxy() {
            continue;
        }
        let placements = scenario.placements().iter();
        let measured = placements.filter(|placement| subject.is_measured(scenario, **placement));
        cells.extend(measured.map(|placement| (index, *placement)));
    }
    cells
}

fn missing(offers: &[Offer], is_wanted: impl Fn(&str) -> bool) -> Vec<Missing> {
    let absent = offers
        .iter()
        .filter_map(|offer| Some((offer.mode.as_str(), offer.missing.as_deref()?)));
    absent
        .filter(|(mode, _)| is_wanted(mode))
        .map(|(mode, reason)| Missing {
            mode: mode.to_owned(),
            scenario: None,
            reason: reason.to_owned(),
        })
        .collect()
}

fn check_modes(modes: &[String], offers: &[Offer]) -> Result<()> {
    let known: Vec<&str> = [BASELINE]
        .into_iter()
        .chain(offers.iter().map(|offer| offer.mode.as_str()))
        .chain([
            Subject::AmbitProxied.mode(),
            Subject::Ambit.mode(),
            Subject::AmbitWaypoint.mode(),
        ])
        .collect();
    for mode in modes {
        ensure!(
            known.contains(&mode.as_str()),
            "--mode: there is no mode {mode:?}; there are {}",
            known.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
