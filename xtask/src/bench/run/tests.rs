use std::env;

use super::*;
use crate::bench::{
    measurement::{Metric, Placement},
    plan::Wanted,
};

/// As root only, and with `lab-load` built, as `cargo xtask test` does.
#[test]
fn a_short_run_without_a_mesh_yields_every_figure_of_every_round() {
    let own = env::current_exe().expect("we run");
    let programs = own.ancestors().nth(2).expect("target/debug/deps");
    let makings = Makings {
        ambit: programs.join("ambit"),
        programs: programs.to_owned(),
        kinds: Vec::new(),
    };
    let wanted = Wanted {
        budget: Duration::from_secs(10),
        limit: None,
        rounds: 2,
        seconds: Some(Duration::from_millis(100)),
        only: vec![Scenario::Bulk(1), Scenario::RoundTrip(1), Scenario::Startup],
        modes: vec!["none".to_owned()],
        rates: Vec::new(),
        pods: Vec::new(),
        generator: Generator::Own,
    };
    let plan = Plan::make(&wanted, &[]).expect("there is something to measure");
    let mut progress = Progress::new(plan.total());
    let outcome = run(&plan, Generator::Own, &makings, &mut progress).expect("as root");

    assert_eq!(outcome.missing, [], "{:?}", outcome.missing);
    for (scenario, placement, metric) in [
        ("bulk-1", Placement::SameNode, Metric::Throughput),
        ("bulk-1", Placement::CrossNode, Metric::Cpu),
        ("round-trip-1", Placement::SameNode, Metric::Requests),
        ("round-trip-1", Placement::CrossNode, Metric::P50),
        ("startup", Placement::CrossNode, Metric::P50),
    ] {
        let rounds: Vec<_> = outcome
            .samples
            .iter()
            .filter(|sample| sample.scenario == scenario)
            .filter(|sample| sample.placement == Some(placement) && sample.metric == metric)
            .map(|sample| (sample.round, sample.mode.as_str(), sample.value > 0.0))
            .collect();
        assert_eq!(
            rounds,
            [(1, "none", true), (2, "none", true)],
            "{scenario} {metric:?}"
        );
    }
    assert!(
        outcome
            .curves
            .iter()
            .all(|curve| curve.scenario == "round-trip-1")
    );
    assert_eq!(outcome.curves.len(), 4);
}
