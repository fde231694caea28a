use super::*;

fn wanted() -> Wanted {
    Wanted {
        budget: Duration::from_secs(150),
        limit: None,
        rounds: 5,
        seconds: None,
        only: Vec::new(),
        modes: Vec::new(),
        rates: vec![2000],
        pods: vec![1, 10],
        idle: 100,
        generator: Generator::Own,
    }
}

fn offers() -> Vec<Offer> {
    vec![
        Offer {
            mode: "sidecar-haproxy".to_owned(),
            is_http: false,
            missing: None,
        },
        Offer {
            mode: "sidecar-haproxy-http".to_owned(),
            is_http: true,
            missing: None,
        },
        Offer {
            mode: "sidecar-envoy".to_owned(),
            is_http: false,
            missing: Some("envoy isn't on PATH: install it".to_owned()),
        },
    ]
}

fn make(change: impl FnOnce(&mut Wanted)) -> Result<Plan> {
    let mut wanted = wanted();
    change(&mut wanted);
    Plan::make(&wanted, &offers())
}

fn scenario(name: &str) -> Scenario {
    name.parse().expect("it is a scenario")
}

/// The modes of a scenario's round, in order, with their placements.
fn round(plan: &Plan, scenario: Scenario, round: u32) -> Vec<(&str, Option<Placement>)> {
    let steps = plan.steps.iter();
    steps
        .filter(|step| step.scenario == scenario && step.round == round)
        .map(|step| (plan.subjects[step.subject].mode(), step.placement))
        .collect()
}

#[test]
fn every_scenario_is_measured_with_each_mode_and_placement_that_it_has() {
    let plan = make(|_| {}).expect("there is much to measure");
    let (same, cross) = (Some(Placement::SameNode), Some(Placement::CrossNode));
    let everywhere = vec![
        ("ambit", same),
        ("ambit", cross),
        ("ambit-proxied", same),
        ("none", same),
        ("none", cross),
        ("sidecar-haproxy", same),
        ("sidecar-haproxy", cross),
    ];
    let by_requests = [
        everywhere.clone(),
        vec![("ambit+waypoint", cross), ("sidecar-haproxy-http", cross)],
    ];
    let mut by_requests = by_requests.concat();
    by_requests.sort_unstable();
    let between_nodes = vec![
        ("ambit", cross),
        ("none", cross),
        ("sidecar-haproxy", cross),
    ];
    let table = [
        ("bulk-1", &everywhere),
        ("bulk-8", &everywhere),
        ("round-trip-1", &by_requests),
        ("round-trip-32", &by_requests),
        ("fixed-rate-2000", &by_requests),
        ("connect", &by_requests),
        ("connect-cold", &between_nodes),
        ("startup", &between_nodes),
        (
            "proxy-restart",
            &vec![("ambit", cross), ("sidecar-haproxy", cross)],
        ),
    ];
    for (name, expected) in table {
        for number in 1..=5 {
            let mut met = round(&plan, scenario(name), number);
            met.sort_unstable();
            assert_eq!(&met, expected, "{name}, round {number}");
        }
        assert_eq!(round(&plan, scenario(name), 6), [], "{name}");
    }
    let mut memory = round(&plan, Scenario::Memory, 1);
    memory.sort_unstable();
    assert_eq!(memory, [("ambit", None), ("sidecar-haproxy", None)]);
    assert_eq!(round(&plan, Scenario::Memory, 2), []);
    for idle in [Scenario::Idle(0), Scenario::Idle(100)] {
        let mut idle_modes = round(&plan, idle, 1);
        idle_modes.sort_unstable();
        let expected = [("ambit+waypoint", None), ("sidecar-haproxy-http", None)];
        assert_eq!(idle_modes, expected, "{idle}");
        assert_eq!(round(&plan, idle, 2), []);
    }
}

#[test]
fn rounds_follow_each_other_and_each_has_an_order_of_its_own_that_is_the_same_in_the_next_run() {
    let plan = make(|_| {}).expect("there is much to measure");
    let rounds: Vec<u32> = plan
        .steps
        .iter()
        .filter(|step| step.scenario == Scenario::Bulk(1))
        .map(|step| step.round)
        .collect();
    assert!(rounds.is_sorted(), "{rounds:?}");
    let orders: Vec<_> = (1..=5)
        .map(|number| round(&plan, Scenario::Bulk(1), number))
        .collect();
    assert!(orders.iter().any(|order| *order != orders[0]), "{orders:?}");
    let again = make(|_| {}).expect("there is much to measure");
    assert_eq!(plan.steps, again.steps);
}

#[test]
fn what_cannot_be_measured_is_missing_with_the_reason() {
    let plan = make(|_| {}).expect("there is much to measure");
    let missing: Vec<_> = plan
        .missing
        .iter()
        .map(|missing| missing.mode.as_str())
        .collect();
    assert_eq!(missing, ["sidecar-envoy"]);
    assert_eq!(plan.missing[0].reason, "envoy isn't on PATH: install it");
    assert_eq!(plan.subjects.len(), 6);
}

#[test]
fn options_narrow_what_is_measured() {
    let plan = make(|wanted| {
        wanted.modes = vec!["none".to_owned(), "ambit".to_owned()];
        wanted.only = vec![Scenario::FixedRate(300), Scenario::FixedRate(300)];
    });
    let plan = plan.expect("there is something to measure");
    let (same, cross) = (Some(Placement::SameNode), Some(Placement::CrossNode));
    let mut met = round(&plan, Scenario::FixedRate(300), 1);
    met.sort_unstable();
    let both = |mode| [(mode, same), (mode, cross)];
    assert_eq!(met, [both("ambit"), both("none")].concat());
    assert_eq!(plan.steps.len(), 5 * 4);
    assert!(
        plan.missing.iter().all(|missing| missing.mode == "ambit"),
        "{:?}",
        plan.missing
    );
}

#[test]
fn a_generator_makes_its_loads_and_the_others_are_missing() {
    let table = [
        (
            Generator::Wrk,
            vec!["round-trip-1", "round-trip-32", "connect"],
        ),
        (
            Generator::H2load,
            vec!["round-trip-1", "round-trip-32", "fixed-rate-2000"],
        ),
        (Generator::Iperf3, vec!["bulk-1", "bulk-8"]),
    ];
    for (generator, expected) in table {
        let plan = make(|wanted| wanted.generator = generator).expect("there is much to measure");
        let mut measured: Vec<_> = plan
            .steps
            .iter()
            .map(|step| step.scenario.to_string())
            .collect();
        measured.dedup();
        assert_eq!(measured, expected, "{generator:?}");
        let left_out = plan
            .missing
            .iter()
            .filter(|missing| missing.scenario.is_some());
        assert_eq!(left_out.count(), 12 - expected.len(), "{generator:?}");
    }
}

#[test]
fn bad_choices_are_refused_with_what_there_is() {
    let error = make(|wanted| wanted.modes = vec!["envoy".to_owned()]).expect_err("no such mode");
    assert_eq!(
        error.to_string(),
        "--mode: there is no mode \"envoy\"; there are none, sidecar-haproxy, sidecar-haproxy-http, \
         sidecar-envoy, ambit-proxied, ambit, ambit+waypoint"
    );
    let error = make(|wanted| wanted.modes = vec!["sidecar-envoy".to_owned()]);
    assert_eq!(
        error.expect_err("it isn't there").to_string(),
        "nothing is left to measure; sidecar-envoy: envoy isn't on PATH: install it"
    );
    for name in [
        "bulk-2",
        "fixed-rate-0",
        "fixed-rate-x",
        "fixed-rate",
        "idle-20001",
        "",
    ] {
        let error = name.parse::<Scenario>().expect_err(name);
        assert!(
            error.contains("bulk-1, bulk-8") && error.contains("fixed-rate-N"),
            "{error}"
        );
    }
}

#[test]
fn names_of_scenarios_are_read_as_they_are_written() {
    for scenario in scenario::wanted(&[], &[1, 5000], 1000) {
        assert_eq!(scenario.to_string().parse(), Ok(scenario));
    }
}

#[test]
fn loads_run_for_what_the_budget_allows_within_bounds() {
    let time = |seconds: u64, given: Option<Duration>| {
        let plan = make(|wanted| {
            wanted.budget = Duration::from_secs(seconds);
            wanted.seconds = given;
        });
        let plan = plan.expect("there is much to measure");
        (plan.load_time, plan.total())
    };
    assert_eq!(time(1, None).0, SHORTEST);
    assert_eq!(time(100_000, None).0, LONGEST);
    let (load, total) = time(300, None);
    assert!((SHORTEST..LONGEST).contains(&load), "{load:?}");
    assert!(total <= Duration::from_secs(300), "{total:?}");
    assert!(total >= Duration::from_secs(299), "{total:?}");
    let given = Duration::from_millis(150);
    assert_eq!(time(300, Some(given)).0, given);
}
