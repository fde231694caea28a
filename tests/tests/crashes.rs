//! Two hundred times `kill -9`, at random moments, under load: nothing is readable between nodes, nobody gets
//! past policy, everything recovers by itself, and nothing is left behind.

use std::{
    collections::BTreeMap,
    env, thread,
    time::{Duration, Instant},
};

use lab::{
    Lab, Mesh, Result, RunningMesh,
    soak::{Footprint, Load, Stage, Victim},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// How many processes are killed.
const KILLS: usize = 200;
/// Within which moment the victims of one round are killed, one after the other.
const ROUND: Duration = Duration::from_millis(400);
/// How likely each is to be a victim of a round.
const LIKELY: f64 = 0.75;
/// For each recovery: far more than one takes, since all of a machine's processors may have other work.
const RECOVERY: Duration = Duration::from_secs(30);
/// For half of them. Two seconds is what is promised of an optimised build on a machine that has time for it;
/// others run beside three more tests.
const USUALLY: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 2 });
/// Those that took longer than promised are told.
const PROMISED: Duration = Duration::from_secs(2);
/// Plays a run again that failed.
const SEED: &str = "AMBIT_CRASH_SEED";

/// How long recoveries took, from the restart of the last victim of a round until every client of every way had an
/// answer to a request that it had begun after that.
struct Recoveries(Vec<(Duration, Vec<Victim>)>);

impl Recoveries {
    fn median(&self) -> Duration {
        self.at(0.5)
    }

    fn at(&self, share: f64) -> Duration {
        let mut sorted: Vec<_> = self.0.iter().map(|(took, _)| *took).collect();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few hundred"
        )]
        let index = ((sorted.len() - 1) as f64 * share) as usize;
        sorted[index]
    }

    fn tell(&self, seed: u64, kills: &BTreeMap<Victim, usize>, took: Duration) {
        let told: Vec<_> = [0.0, 0.5, 0.9, 0.99, 1.0]
            .iter()
            .map(|share| format!("p{:.0} {:?}", share * 100.0, self.at(*share)))
            .collect();
        eprintln!("seed {seed}, {took:?}, kills {kills:?}");
        eprintln!("{} rounds, recovered: {}", self.0.len(), told.join(", "));
        for (took, victims) in self.0.iter().filter(|(took, _)| *took > PROMISED) {
            eprintln!("  {took:?} after {victims:?}");
        }
    }
}

/// Kills at random moments until enough are dead.
fn kill(
    lab: &Lab,
    mesh: &mut RunningMesh<'_>,
    load: &Load,
    seed: u64,
) -> Result<(Recoveries, BTreeMap<Victim, usize>)> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut recoveries = Recoveries(Vec::new());
    let mut kills = BTreeMap::new();
    while kills.values().sum::<usize>() < KILLS {
        let mut moments = Vec::new();
        for victim in Victim::ALL {
            if chance.random_bool(LIKELY) {
                moments.push((chance.random_range(Duration::ZERO..ROUND), victim));
            }
        }
        moments.sort_unstable();
        let began = Instant::now();
        let (mut last, mut victims) = (None, Vec::new());
        for (moment, victim) in moments {
            // The moment is the test: there is nothing to wait for.
            thread::sleep(moment.saturating_sub(began.elapsed()));
            if let Some(restarted) = victim.crash(lab, mesh)? {
                last = Some(restarted);
                victims.push(victim);
                *kills.entry(victim).or_default() += 1;
            }
        }
        let Some(last) = last else {
            continue;
        };
        let took = load.await_answers(last, RECOVERY);
        let took = took.unwrap_or_else(|error| panic!("after {victims:?}, seed {seed}: {error}"));
        mesh.await_ready()?;
        recoveries.0.push((took, victims));
        load.check()?;
    }
    Ok((recoveries, kills))
}

#[test]
fn two_hundred_kills_let_nothing_by_and_leave_nothing_behind() -> Result<()> {
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("{SEED}={seed}");
    let lab = Lab::builder("crashes").build()?;
    let stage = Stage::set(&lab)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let wire = stage.watch(&lab)?;
    // Every way has been used once, so that what stays of it is there.
    stage.load()?;
    mesh.renew_waypoint("b")?;
    let before = Footprint::settled(&lab)?;

    let load = stage.load()?;
    load.hurry(true);
    let began = Instant::now();
    let (recoveries, kills) = kill(&lab, &mut mesh, &load, seed)?;
    recoveries.tell(seed, &kills, began.elapsed());
    let seen = wire.check()?;
    assert!(seen.packets > 50 * KILLS as u64, "{seen:?}");
    for requests in &load.forbidden {
        assert!(requests.count().failed > 10, "{} tried", requests.name());
    }
    drop(load);
    mesh.renew_waypoint("b")?;
    Footprint::await_again(&lab, &before)?;
    assert!(recoveries.median() <= USUALLY, "{:?}", recoveries.median());
    Ok(())
}
