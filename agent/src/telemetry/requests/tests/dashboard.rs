//! The dashboard, against the metrics that waypoints have.

use super::*;
use crate::telemetry::{ResilienceMetrics, otlp::Exporter};

#[tokio::test]
async fn the_dashboard_asks_for_metrics_and_labels_that_there_are() {
    let metrics = metrics();
    RequestReport::open(&metrics, description()).finish(answered(StatusCode::OK));
    let exporter = Exporter::new("http://127.0.0.1:1".parse().unwrap(), &[]).unwrap();
    exporter.queue().counts().observe(&metrics).unwrap();
    let ejected = || vec![(object("shop", "cart"), 1)];
    ResilienceMetrics::observe_ejected(&metrics, ejected).unwrap();
    let samples = scrape(&metrics, "");
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/monitoring/ambit.json"
    );
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let mut asked = 0;
    for query in targets.map(|target| target["expr"].as_str().unwrap()) {
        // What is within quotes names nothing.
        let outside = query.split('"').step_by(2);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words: Vec<&str> = outside
            .flat_map(|part| part.split(|c| !is_name(c)))
            .collect();
        let starts = [
            "istio_request",
            "istio_response_bytes",
            "ambit_trace_",
            "ambit_waypoint_",
        ];
        let is_metric = |word: &str| starts.iter().any(|start| word.starts_with(start));
        for metric in words.iter().filter(|word| is_metric(word)) {
            let sample = samples.iter().find(|sample| sample.name == **metric);
            let sample = sample.unwrap_or_else(|| panic!("{metric}, of {query}"));
            let functions = [
                "sum",
                "max",
                "by",
                "rate",
                "histogram_quantile",
                "__rate_interval",
            ];
            let is_label = |word: &&&str| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && !is_metric(word)
                    && !functions.contains(*word)
            };
            for label in words.iter().filter(is_label) {
                let known = sample.labels.iter().any(|(name, _)| name == label);
                assert!(known, "{label}, of {query}");
            }
            asked += 1;
        }
    }
    assert!(asked >= 9, "{asked}");
}
