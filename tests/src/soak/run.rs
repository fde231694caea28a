//! The soak: half of the time with the same processes, to see whether they grow, then with others all the time.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    Footprint, Load, Report, Stage, Victim, Wire, books, disturb,
    resources::{check_flat, holdings},
    stage::RATE,
};
use crate::{Child, Error, Lab, Mesh, Result, RunningMesh};

/// Short, so that all certificates are renewed many times: at half of their life.
const CERTIFICATE_TTL: &str = "20s";
/// How long an agent that was replaced may take to end, once nothing is open any more.
const ENDED: Duration = Duration::from_secs(40);
/// When processes have warmed up, as a share of the time in which they stay.
const WARM: f64 = 0.4;

/// How a soak is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For how long, from when the load is up.
    pub time: Duration,
    /// Of the order of disturbances.
    pub seed: u64,
    /// The longest that a recovery from `kill -9` may take.
    pub recovery: Duration,
}

/// What happens to the mesh next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Audit,
    Policy,
    Pod,
    Manifest,
    Takeover(&'static str),
    Control,
    Kill,
}

/// With the same processes.
const STEADY: [Disturbance; 4] = [
    Disturbance::Audit,
    Disturbance::Policy,
    Disturbance::Pod,
    Disturbance::Manifest,
];
/// With others.
const RESTLESS: [Disturbance; 4] = [
    Disturbance::Kill,
    Disturbance::Takeover("a"),
    Disturbance::Takeover("b"),
    Disturbance::Control,
];

struct Soak<'a, 'l> {
    lab: &'l Lab,
    mesh: RunningMesh<'l>,
    stage: Stage,
    load: Load,
    wire: Wire,
    chance: StdRng,
    settings: Settings,
    /// Agents that end when what they carried has ended.
    replaced: Vec<Child>,
    report: &'a mut Report,
    tell: &'a mut dyn FnMut(&str),
}

/// Runs a soak on a lab of two nodes, and tells what it does. What was seen is in the report, be it that it
/// failed.
///
/// # Errors
/// The first thing that doesn't hold, or doesn't happen in time.
pub fn run(
    lab: &Lab,
    mesh: Mesh,
    settings: Settings,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    report.seed = settings.seed;
    report.rate = 3 * RATE;
    tell("starting the mesh");
    let stage = Stage::set(lab)?;
    let arguments = [
        "--drain",
        disturb::DRAIN,
        "--log-level",
        "info,ambit::access=off",
    ];
    let mesh = mesh
        .certificate_ttl(CERTIFICATE_TTL)
        .agent_arguments(&arguments)
        .start(lab)?;
    let wire = stage.watch(lab)?;
    tell("all ways are used, and what stays of it is noted");
    drop(stage.load()?);
    mesh.renew_waypoint("b")?;
    let footprints = Footprint::settled(lab)?;
    let load = stage.load()?;
    let mut soak = Soak {
        lab,
        mesh,
        stage,
        load,
        wire,
        chance: StdRng::seed_from_u64(settings.seed),
        settings,
        replaced: Vec::new(),
        report,
        tell,
    };
    let began = Instant::now();
    let half = began + settings.time / 2;
    let done = soak
        .steadily(half)
        .and_then(|()| soak.restlessly(began + settings.time));
    let checked = soak.check();
    soak.report.seconds = began.elapsed().as_secs();
    soak.report.refused = soak.load.forbidden.iter().map(|it| it.count().failed).sum();
    done.and(checked)?;
    let Soak {
        load,
        mesh,
        replaced,
        tell,
        ..
    } = soak;
    tell("the load ends, and what stays of it is compared");
    drop(load);
    for agent in replaced {
        agent.wait(ENDED)?.success()?;
    }
    mesh.renew_waypoint("b")?;
    Footprint::await_again(lab, &footprints)
}

impl Soak<'_, '_> {
    /// The same processes until a moment: nothing is lost, and nothing grows.
    fn steadily(&mut self, until: Instant) -> Result<()> {
        let warm = Instant::now() + (until - Instant::now()).mul_f64(WARM);
        for turn in 0.. {
            let next = STEADY[turn % STEADY.len()];
            self.disturb(next, true)?;
            if self.report.warm.is_empty() && Instant::now() >= warm {
                self.report.warm = holdings(&self.mesh)?;
            }
            if Instant::now() >= until {
                break;
            }
        }
        (self.tell)("certificates are renewed");
        self.report.certificates += disturb::await_renewal(self.lab)?;
        self.report.last = holdings(&self.mesh)?;
        check_flat(&self.report.warm, &self.report.last)
    }

    /// Others until a moment, each kind at least once: nothing is lost but by kills, and that recovers.
    fn restlessly(&mut self, until: Instant) -> Result<()> {
        for turn in 0.. {
            self.disturb(RESTLESS[turn % RESTLESS.len()], false)?;
            let other = STEADY.choose(&mut self.chance).copied();
            self.disturb(other.unwrap_or(Disturbance::Audit), false)?;
            self.disturb(Disturbance::Kill, false)?;
            if Instant::now() >= until && turn + 1 >= RESTLESS.len() {
                break;
            }
        }
        Ok(())
    }

    fn disturb(&mut self, what: Disturbance, is_steady: bool) -> Result<()> {
        let before = self.load.failures();
        let began = Instant::now();
        let (lab, stage, report) = (self.lab, &self.stage, &mut *self.report);
        match what {
            Disturbance::Audit => {
                (self.tell)("bytes are transferred and compared, with counters too");
                report.audited_bytes += books::audit(stage, lab)?;
            }
            Disturbance::Policy => {
                (self.tell)("a policy denies, and is removed");
                report.felt(disturb::change_policy(stage, lab)?);
            }
            Disturbance::Pod => {
                (self.tell)("a pod comes and goes");
                disturb::come_and_go(stage, lab, report.pods)?;
                report.pods += 1;
            }
            Disturbance::Manifest => {
                (self.tell)("a manifest is broken");
                disturb::break_manifest(lab, report.bad_inputs)?;
                report.bad_inputs += 1;
            }
            Disturbance::Takeover(node) => {
                (self.tell)(&format!("an agent takes over on {node}"));
                self.replaced
                    .extend(self.mesh.replace_agent(lab.node(node))?);
                report.takeovers += 1;
            }
            Disturbance::Control => {
                (self.tell)("control is replaced");
                self.mesh.replace_control()?;
                report.control_replaced += 1;
            }
            Disturbance::Kill => self.kill()?,
        }
        // Whoever began a request meanwhile has its answer.
        self.load
            .await_answers(Instant::now(), self.settings.recovery)?;
        let lost = self.load.failures() - before;
        self.check()?;
        if what == Disturbance::Kill || lost == 0 {
            return Ok(());
        }
        self.report.lost += lost;
        let found = format!(
            "{lost} failed during {what:?} ({:?}, steady: {is_steady}): {}",
            began.elapsed(),
            self.load.why().join("; ")
        );
        Err(Error::violated(
            "\"no request is lost but by kill -9\"",
            found,
        ))
    }

    /// Kills one or two, and waits until all is well.
    fn kill(&mut self) -> Result<()> {
        let count = self.chance.random_range(1..=2);
        let victims: Vec<_> = Victim::ALL
            .sample(&mut self.chance, count)
            .copied()
            .collect();
        let names: Vec<_> = victims.iter().map(ToString::to_string).collect();
        (self.tell)(&format!("kill -9: {}", names.join(", ")));
        self.load.hurry(true);
        let mut last = None;
        for victim in victims {
            if let Some(restarted) = victim.crash(self.lab, &mut self.mesh)? {
                last = Some(restarted);
                self.report.killed(victim);
            }
        }
        if let Some(last) = last {
            let took = self.load.await_answers(last, self.settings.recovery)?;
            self.report.recovered(took);
        }
        self.load.hurry(false);
        self.mesh.await_ready()
    }

    /// What must hold at any time.
    fn check(&mut self) -> Result<()> {
        let seen = self.wire.check()?;
        self.report.packets = seen.packets;
        self.report.wire_bytes = seen.bytes;
        self.report.answered = self.load.answered();
        self.load.check()
    }
}
