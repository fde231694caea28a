use super::{super::report::tests::report, *};

fn measured(mode: &str, metric: Metric, [low, value, high]: [f64; 3]) -> Measurement {
    Measurement {
        scenario: "bulk-1".to_owned(),
        mode: mode.to_owned(),
        placement: Some(Placement::CrossNode),
        metric,
        unit: Unit::Ratio,
        value,
        low,
        high,
        rounds: 5,
        pods: None,
        extrapolated: false,
    }
}

fn of(measurements: Vec<Measurement>) -> Report {
    let mut report = report(Vec::new(), &[]);
    report.measurements = measurements;
    report
}

#[track_caller]
fn check(metric: Metric, old: [f64; 3], new: [f64; 3], better: Option<bool>) {
    let of = |figures| of(vec![measured("ambit", metric, figures)]);
    let comparison = between(&of(old), &of(new));
    let moved: Vec<_> = comparison.moved.iter().map(Move::is_better).collect();
    assert_eq!(moved, Vec::from_iter(better), "{old:?} to {new:?}");
    assert_eq!(comparison.unmoved, usize::from(better.is_none()));
}

#[test]
fn a_figure_moves_if_intervals_part_and_the_step_is_more_than_three_percent() {
    let old = [9.9, 10.0, 10.1];
    check(Metric::Throughput, old, [10.9, 11.0, 11.1], Some(true));
    check(Metric::Throughput, old, [8.9, 9.0, 9.1], Some(false));
    check(Metric::P99, old, [10.9, 11.0, 11.1], Some(false));
    check(Metric::P99, old, [8.9, 9.0, 9.1], Some(true));
    check(Metric::P99, old, [10.05, 12.0, 14.0], None);
    check(Metric::P99, old, [10.2, 10.2, 10.2], None);
    check(Metric::P99, old, old, None);
    check(Metric::Dropped, [0.0; 3], [2.0, 3.0, 3.0], Some(false));
    check(Metric::Dropped, [0.0; 3], [0.0; 3], None);
}

#[test]
fn a_comparison_reads_as_lines_that_name_the_figures() {
    let old = of(vec![
        measured("ambit", Metric::Throughput, [0.49, 0.5, 0.51]),
        measured("none", Metric::Cpu, [1.0, 1.0, 1.0]),
        measured("ambit", Metric::P50, [1.0, 1.0, 1.0]),
    ]);
    let mut new = of(vec![
        measured("ambit", Metric::Throughput, [0.61, 0.62, 0.63]),
        measured("ambit", Metric::P50, [1.0, 1.0, 1.0]),
        measured("ambit+waypoint", Metric::P50, [1.0, 1.0, 1.0]),
    ]);
    new.machine.cores = 8;
    new.command.quick = true;
    let expected = "\
warning: another machine: cores: 2 then, 8 now
warning: only one of the runs was --quick
better bulk-1 cross-node ambit throughput ratio: 0.500 -> 0.620 ratio (+24.0 %)
only in the old report: bulk-1 cross-node none cpu ratio
only in the new report: bulk-1 cross-node ambit+waypoint p50 ratio
1 better, 0 worse, 1 unmoved";
    assert_eq!(between(&old, &new).to_string(), expected);
}

#[test]
fn a_single_round_is_warned_of() {
    let mut single = of(vec![measured("ambit", Metric::P50, [1.0; 3])]);
    single.measurements[0].rounds = 1;
    let warnings = between(&single, &single).warnings;
    assert!(warnings[0].contains("single round"), "{warnings:?}");
}

#[test]
fn a_report_compared_with_itself_by_way_of_its_file_has_not_moved() {
    let directory = tempfile::tempdir().expect("a directory");
    let figures = vec![measured(
        "ambit",
        Metric::P50,
        [0.1 + 0.2, 1.0 / 3.0, 2.0 / 3.0],
    )];
    let report = of(figures);
    report.write(directory.path()).expect("it can be written");
    let old = read(&directory.path().join("report.json")).expect("it is a report");
    let expected = Comparison {
        unmoved: 1,
        ..Comparison::default()
    };
    assert_eq!(between(&old, &report), expected);
}

#[test]
fn a_file_of_another_shape_is_refused_with_the_field_and_the_cure() {
    let good = serde_json::to_string(&of(vec![measured("ambit", Metric::P50, [1.0; 3])]))
        .expect("it is JSON");
    let table = [
        (
            good.replace("\"p50\"", "\"p51\""),
            "field `measurements[0].metric`: unknown variant",
        ),
        (
            good.replace("\"unit\"", "\"units\""),
            "field `measurements[0].units`: unknown field",
        ),
        (
            good.replace("\"cores\":2", "\"cores\":\"2\""),
            "field `machine.cores`: invalid type",
        ),
        (
            good.replace("\"missing\":[],", ""),
            "missing field `missing`",
        ),
        ("[]".to_owned(), "invalid length 0"),
        (String::new(), "EOF"),
        (format!("{good} {good}"), "something follows the report"),
    ];
    for (text, expected) in table {
        let error = format!("{:#}", parse(&text).expect_err(expected));
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("give --compare a"), "{error}");
    }
}

#[test]
fn an_absent_file_is_named() {
    let error = read(Path::new("/nonexistent/old.json"));
    assert!(
        error
            .expect_err("there is none")
            .to_string()
            .contains("/nonexistent/old.json")
    );
}
