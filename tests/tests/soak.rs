//! Two minutes of the soak that `cargo xtask soak` runs for as long as one likes.

use std::{env, time::Duration};

use lab::{
    Family, Lab, Mesh, PodNetwork, Result,
    soak::{self, Report, Settings},
};

const TIME: Duration = Duration::from_secs(120);
/// Far more than one takes: other tests may have all processors. How long they did take is told.
const RECOVERY: Duration = Duration::from_secs(30);
/// Plays a run again that failed.
const SEED: &str = "AMBIT_SOAK_SEED";

#[test]
fn nothing_is_lost_and_nothing_grows_while_everything_changes() -> Result<()> {
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("{SEED}={seed}");
    let lab = Lab::builder("soak")
        .pods(PodNetwork::Bridged)
        .family(Family::V6)
        .build()?;
    let settings = Settings {
        time: TIME,
        seed,
        recovery: RECOVERY,
    };
    let mut report = Report::default();
    let mut tell = |what: &str| eprintln!("  {what}");
    let done = soak::run(&lab, Mesh::default(), settings, &mut report, &mut tell);
    for (what, figures) in report.table() {
        eprintln!("{what:12} {figures}");
    }
    done?;
    assert!(report.is_complete(), "{report:?}");
    Ok(())
}
