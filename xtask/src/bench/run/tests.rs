use std::env;

use lab::sidecar::Kind;

use super::*;
use crate::bench::{
    measurement::{Metric, Placement},
    plan::{Offer, Wanted},
};

/// Two rounds, as root only, with `lab-load` and `ambit` built, as `cargo xtask test` does.
fn run_shortly(only: Vec<Scenario>, modes: &[&str], offers: &[Offer]) -> Outcome {
    let own = env::current_exe().expect("we run");
    let programs = own.ancestors().nth(2).expect("target/debug/deps");
    let makings = Makings {
        ambit: programs.join("ambit"),
        programs: programs.to_owned(),
        kinds: vec![Kind::HaProxyHttp],
    };
    let wanted = Wanted {
        budget: Duration::from_secs(10),
        limit: None,
        rounds: 2,
        seconds: Some(Duration::from_millis(100)),
        only,
        modes: modes.iter().map(ToString::to_string).collect(),
        rates: Vec::new(),
        pods: Vec::new(),
        idle: 0,
        generator: Generator::Own,
    };
    let plan = Plan::make(&wanted, offers).expect("there is something to measure");
    let mut progress = Progress::new(plan.total());
    let outcome = run(&plan, Generator::Own, &makings, &mut progress).expect("as root");
    assert_eq!(outcome.missing, [], "{:?}", outcome.missing);
    outcome
}

#[test]
fn http_is_measured_through_a_waypoint_and_through_sidecars_that_read_it() {
    let offer = Offer {
        mode: "sidecar-haproxy-http".to_owned(),
        is_http: true,
        missing: None,
    };
    let modes = ["ambit+waypoint", "sidecar-haproxy-http"];
    let scenarios = vec![Scenario::RoundTrip(2), Scenario::Idle(20)];
    let outcome = run_shortly(scenarios, &modes, &[offer]);
    for mode in modes {
        for (scenario, metric, expected) in [
            ("idle-20", Metric::Resident, 1),
            ("round-trip-2", Metric::Requests, 2),
            ("round-trip-2", Metric::Cpu, 2),
        ] {
            let samples = outcome.samples.iter();
            let of_it = samples
                .filter(|it| (it.mode.as_str(), it.scenario.as_str()) == (mode, scenario))
                .filter(|it| it.metric == metric && it.value > 0.0);
            assert_eq!(of_it.count(), expected, "{mode} {scenario} {metric:?}");
        }
    }
}

#[test]
fn a_short_run_without_a_mesh_yields_every_figure_of_every_round() {
    let scenarios = vec![Scenario::Bulk(1), Scenario::RoundTrip(1), Scenario::Startup];
    let outcome = run_shortly(scenarios, &["none"], &[]);
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
