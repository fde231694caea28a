use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    super::measurement::{Metric, Placement, Unit},
    *,
};

const MODES: [(&str, f64); 5] = [
    ("none", 1.0),
    ("sidecar-haproxy", 2.6),
    ("ambit", 1.3),
    ("ambit-proxied", 1.8),
    ("ambit+waypoint", 3.1),
];

type Figures = &'static [(Metric, Unit, f64)];

/// What each scenario measures, and roughly what without a mesh.
const SCENARIOS: [(&str, Figures); 9] = [
    ("bulk-1", BULK),
    ("bulk-8", BULK),
    ("round-trip-1", REQUESTS),
    ("round-trip-32", REQUESTS),
    ("fixed-rate-2000", REQUESTS),
    ("connect", CONNECT),
    ("connect-cold", CONNECT),
    ("startup", &[(Metric::P50, Unit::Milliseconds, 12.0)]),
    (
        "proxy-restart",
        &[(Metric::Dropped, Unit::Connections, 0.0)],
    ),
];
const BULK: Figures = &[
    (Metric::Throughput, Unit::GigabitsPerSecond, 20.4),
    (Metric::Cpu, Unit::SecondsPerGigabyte, 0.55),
];
const REQUESTS: Figures = &[
    (Metric::Requests, Unit::PerSecond, 134_928.0),
    (Metric::P50, Unit::Microseconds, 56.0),
    (Metric::P90, Unit::Microseconds, 80.0),
    (Metric::P99, Unit::Microseconds, 166.0),
    (Metric::P999, Unit::Microseconds, 410.0),
    (Metric::Cpu, Unit::MicrosecondsPerRequest, 14.0),
];
const CONNECT: Figures = &[(Metric::Requests, Unit::PerSecond, 19_671.0)];

/// A run that measures all that a run can have.
fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let places = [Placement::SameNode, Placement::CrossNode];
    for (scenario, figures) in SCENARIOS {
        for (placement, (mode, cost)) in places
            .into_iter()
            .flat_map(|place| MODES.map(|mode| (place, mode)))
        {
            for (round, noise) in [(0, 0.96), (1, 1.0), (2, 1.03), (3, 0.99), (4, 1.11)] {
                samples.extend(figures.iter().map(|(metric, unit, value)| Sample {
                    scenario: scenario.to_owned(),
                    mode: mode.to_owned(),
                    placement: Some(placement),
                    metric: *metric,
                    unit: *unit,
                    round,
                    value: match metric.better() {
                        std::cmp::Ordering::Greater => value / cost * noise,
                        _ => value * cost * noise,
                    },
                    pods: None,
                }));
            }
        }
    }
    for (mode, base, each) in [("sidecar-haproxy", 9.0, 8.6), ("ambit", 47.0, 0.06)] {
        for (pods, round) in [1, 10, 50, 200]
            .into_iter()
            .flat_map(|pods| [(pods, 0), (pods, 1)])
        {
            samples.push(Sample {
                scenario: "memory".to_owned(),
                mode: mode.to_owned(),
                placement: None,
                metric: Metric::Resident,
                unit: Unit::Mebibytes,
                round,
                value: base + each * f64::from(pods) * (1.0 + 0.05 * f64::from(round)),
                pods: Some(pods),
            });
        }
    }
    samples
}

fn missing() -> Vec<Missing> {
    let reason = "no `envoy` on PATH: install it | <or> leave it\nat that".to_owned();
    let envoy = Missing {
        mode: "sidecar-envoy".to_owned(),
        scenario: None,
        reason,
    };
    let scenario = Some("proxy-restart".to_owned());
    vec![
        Missing {
            mode: "sidecar-linkerd".to_owned(),
            scenario,
            ..envoy.clone()
        },
        envoy,
    ]
}

/// A report of `samples`, whatever machine this is.
pub(in super::super) fn report(missing: Vec<Missing>, samples: &[Sample]) -> Report {
    let machine = Machine {
        cpu: "Fast CPU".to_owned(),
        cores: 2,
        memory_mib: 24_105,
        kernel: "6.18.0".to_owned(),
        virtualised: Some(true),
        governor: None,
        versions: [("haproxy".to_owned(), "2.6.12".to_owned())].into(),
    };
    let command = Command {
        line: "cargo xtask bench".to_owned(),
        date: "2026-11-21 09:12 UTC".to_owned(),
        seconds: 812.4,
        revision: Some("a827a87".to_owned()),
        quick: false,
    };
    Report::new(machine, command, missing, samples, Vec::new())
}

/// Every text that shows the report to people.
fn texts(report: &Report) -> [(&'static str, String); 3] {
    let html = html::of(report).expect("the plots can be drawn");
    [
        ("table", report.table()),
        ("markdown", markdown::of(report)),
        ("html", html),
    ]
}

#[test]
fn an_object_of_the_json_has_the_names_that_are_fixed() {
    let written = serde_json::to_value(report(missing(), &samples())).expect("it is JSON");
    let keys: Vec<_> = written.as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        ["command", "machine", "measurements", "missing", "notes"]
    );
    let all = written["measurements"].as_array().expect("a list");
    let find = |mode: &str, unit: &str, pods: Value| {
        let is = |one: &&Value| one["mode"] == mode && one["unit"] == unit && one["pods"] == pods;
        all.iter().find(is).expect("it is measured").clone()
    };
    let ratio = json!({
        "scenario": "bulk-1", "mode": "ambit", "placement": "same-node", "metric": "throughput",
        "unit": "ratio", "value": 1.0 / 1.3, "low": 1.0 / 1.3, "high": 1.0 / 1.3, "rounds": 5,
    });
    let rounded = |one: &Value| {
        let mut one = one.clone();
        for name in ["value", "low", "high"] {
            one[name] = json!((one[name].as_f64().expect("a number") * 1e6).round() / 1e6);
        }
        one
    };
    assert_eq!(
        rounded(&find("ambit", "ratio", Value::Null)),
        rounded(&ratio)
    );
    let few = json!({
        "scenario": "memory", "mode": "ambit", "placement": null, "metric": "resident",
        "unit": "MiB", "value": 47.6 + 0.015, "low": 47.6075, "high": 47.6225, "rounds": 2,
        "pods": 10,
    });
    assert_eq!(rounded(&find("ambit", "MiB", json!(10))), rounded(&few));
    let many = find("ambit", "MiB", json!(500));
    assert_eq!(many["extrapolated"], true, "{many}");
}

#[test]
fn metrics_units_and_placements_are_written_as_they_are_shown() {
    let name = |value: Value| value.as_str().map(str::to_owned);
    let metrics = [
        (Metric::Throughput, "throughput"),
        (Metric::Requests, "requests"),
        (Metric::P50, "p50"),
        (Metric::P90, "p90"),
        (Metric::P99, "p99"),
        (Metric::P999, "p999"),
        (Metric::Cpu, "cpu"),
        (Metric::Resident, "resident"),
        (Metric::Dropped, "dropped"),
    ];
    for (metric, text) in metrics {
        assert_eq!(
            (name(json!(metric)).as_deref(), metric.name()),
            (Some(text), text)
        );
    }
    let units = [
        (Unit::GigabitsPerSecond, "Gbit/s"),
        (Unit::PerSecond, "1/s"),
        (Unit::Microseconds, "us"),
        (Unit::Milliseconds, "ms"),
        (Unit::SecondsPerGigabyte, "s/GB"),
        (Unit::MicrosecondsPerRequest, "us/request"),
        (Unit::Mebibytes, "MiB"),
        (Unit::Connections, "connections"),
        (Unit::Ratio, "ratio"),
    ];
    for (unit, text) in units {
        assert_eq!(
            (name(json!(unit)).as_deref(), unit.name()),
            (Some(text), text)
        );
    }
    let placements = [
        (Placement::SameNode, "same-node"),
        (Placement::CrossNode, "cross-node"),
    ];
    for (placement, text) in placements {
        assert_eq!(
            (name(json!(placement)).as_deref(), placement.name()),
            (Some(text), text)
        );
    }
}

#[test]
fn every_mode_and_scenario_is_in_every_format() {
    let (samples, missing) = (samples(), missing());
    let names: BTreeSet<&str> = samples
        .iter()
        .flat_map(|sample| [sample.scenario.as_str(), &sample.mode])
        .chain(missing.iter().map(|missing| missing.mode.as_str()))
        .collect();
    assert_eq!(names.len(), 10 + 7);
    for (format, text) in texts(&report(missing.clone(), &samples)) {
        for name in &names {
            assert!(text.contains(name), "{name} in {format}: {text}");
        }
    }
}

#[test]
fn the_page_fetches_nothing() {
    let page = html::of(&report(missing(), &samples())).expect("the plots can be drawn");
    assert!(page.matches("<svg").count() > 20, "plots are in it");
    for way_out in [
        "http:", "https:", "//", "url(", "@import", "src=", "href=", "<script",
    ] {
        assert!(!page.contains(way_out), "{way_out}");
    }
}

#[test]
fn what_is_missing_is_said_in_one_line_and_cannot_break_a_format() {
    let [(_, table), (_, markdown), (_, html)] = texts(&report(missing(), &samples()));
    let expected = "missing: everything of sidecar-envoy: no `envoy` on PATH: install it | <or> leave it at that\n";
    assert!(table.contains(expected), "{table}");
    let expected = "| sidecar-envoy | everything | no `envoy` on PATH: install it \\| &lt;or> leave it at that |\n";
    assert!(markdown.contains(expected), "{markdown}");
    let expected = "| sidecar-linkerd | not measured: no `envoy`";
    assert_eq!(
        markdown.matches(expected).count(),
        2,
        "once a placement: {markdown}"
    );
    assert!(html.contains("install it | &lt;or&gt; leave it"), "{html}");
}

#[test]
fn an_empty_run_is_an_honest_report() {
    let empty = report(missing(), &[]);
    assert_eq!(empty.measurements, []);
    for (format, text) in texts(&empty) {
        assert!(text.contains("Nothing was measured."), "{format}: {text}");
        assert!(text.contains("sidecar-envoy"), "{format}: {text}");
        assert!(
            !text.contains("<svg") && !text.contains("NaN"),
            "{format}: {text}"
        );
    }
}

#[test]
fn all_three_files_are_written_and_the_json_is_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let written = report(missing(), &samples());
    let bench = directory.path().join("bench");
    written.write(&bench).expect("it can be written");
    let read = |name: &str| fs::read_to_string(bench.join(name)).expect("it is written");
    let again: Report = serde_json::from_str(&read("report.json")).expect("it is ours");
    assert_eq!(again.measurements.len(), written.measurements.len());
    let measurements = written.measurements.clone();
    assert_eq!(
        Report {
            measurements,
            ..again
        },
        written
    );
    assert!(read("report.md").contains("**") && read("report.html").contains("<svg"));
}

#[test]
fn the_table_marks_whoever_is_best() {
    let mut samples = samples();
    samples.retain(|sample| sample.scenario == "bulk-1" && sample.metric == Metric::Throughput);
    samples.retain(|sample| sample.placement == Some(Placement::CrossNode));
    samples.retain(|sample| ["none", "sidecar-haproxy", "ambit"].contains(&sample.mode.as_str()));
    for sample in samples.iter_mut().filter(|sample| sample.mode == "ambit") {
        sample.value /= 4.0;
    }
    let expected = "\
scenario  placement   metric      none         sidecar-haproxy  ambit
bulk-1    cross-node  throughput  20.4 Gbit/s  ×0.385*          ×0.192
(× is the ratio to none; * the best mesh, or no worse than it within the noise)
";
    assert_eq!(report(Vec::new(), &samples).table(), expected);
}
#[test]
fn a_latency_curve_has_its_run_s_detail() {
    let longest = |curves| {
        let mut report = report(Vec::new(), &samples());
        report.curves = curves;
        let page = html::of(&report).expect("the plots can be drawn");
        let lines = page.split("points=\"").skip(1);
        lines
            .map(|line| {
                line.split('"')
                    .next()
                    .unwrap_or_default()
                    .matches(',')
                    .count()
            })
            .max()
    };
    let curve = Curve {
        scenario: "round-trip-1".to_owned(),
        mode: "ambit".to_owned(),
        placement: Some(Placement::SameNode),
        round: 0,
        points: vec![(0.5, 50.0), (0.99, 90.0), (1.0, 300.0)],
    };
    assert_eq!(longest(vec![curve]), Some(61));
    assert_eq!(longest(Vec::new()), Some(4), "its percentiles at least");
}
