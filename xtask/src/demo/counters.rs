//! Counters of the agents, before and after.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lab::Lab;

use super::stage::Stage;

/// Families that are read, and the label by which each is told apart; all other labels are summed.
const FAMILIES: [(&str, &str); 6] = [
    ("istio_tcp_connections_opened_total", "reporter"),
    ("istio_tcp_connections_closed_total", "response_flags"),
    ("istio_tcp_sent_bytes_total", "reporter"),
    ("istio_tcp_received_bytes_total", "reporter"),
    ("ambit_policy_denials_total", "rule"),
    ("ambit_capture_packets_total", "reason"),
];
/// What must have moved on each node, by the beginning of the name.
const MUST_MOVE: [&str; 5] = [
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_sent_bytes_total",
    "istio_tcp_received_bytes_total",
    "ambit_capture_packets_total{captured_new}",
];

/// Values by node and counter.
pub(super) struct Counters(BTreeMap<String, Values>);

type Values = BTreeMap<String, u64>;

impl Counters {
    /// Asks each agent for its metrics.
    pub(super) fn read(lab: &Lab) -> Result<Counters> {
        let mut counters = BTreeMap::new();
        for node in lab.nodes() {
            let page = node.fetch("http://127.0.0.1:15020/metrics")?;
            counters.insert(node.name().to_owned(), values(&page));
        }
        Ok(Counters(counters))
    }
}

/// Every agent counted connections, bytes and captured packets since it was started.
pub(super) fn moved(stage: &mut Stage<'_>) -> Result<String> {
    let (mut detail, mut count, mut still) = (String::new(), 0, Vec::new());
    let nothing = Values::new();
    for (node, after) in &Counters::read(stage.lab)?.0 {
        let before = stage.before.0.get(node).unwrap_or(&nothing);
        let moved = difference(before, after);
        let moves = |name: &&str| !moved.iter().any(|(moved, ..)| moved.starts_with(name));
        still.extend(
            MUST_MOVE
                .iter()
                .filter(|name| moves(name))
                .map(|name| format!("{node} {name}")),
        );
        count += moved.len();
        for (name, from, to) in moved {
            detail += &format!("\nnode {node}  {name:57} {from:>8} -> {to}");
        }
    }
    ensure!(still.is_empty(), "not moved: {}{detail}", still.join(", "));
    Ok(format!(
        "{count} on two nodes, connections and bytes among them{detail}"
    ))
}

/// The counters that grew, with both values.
fn difference<'a>(before: &Values, after: &'a Values) -> Vec<(&'a str, u64, u64)> {
    let grown = after.iter().filter_map(|(name, to)| {
        let from = before.get(name).copied().unwrap_or_default();
        (*to > from).then_some((name.as_str(), from, *to))
    });
    grown.collect()
}

/// Reads Prometheus's text format 0.0.4, as far as the agents' counters need it.
fn values(page: &str) -> Values {
    let mut values = Values::new();
    for line in page.lines() {
        let Some((sample, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let Some((_, label)) = FAMILIES.iter().find(|(family, _)| *family == name) else {
            continue;
        };
        let begin = format!("{label}=\"");
        let by = labels
            .split_once(&begin)
            .and_then(|(_, rest)| rest.split_once('"'));
        let by = by.map_or("", |(by, _)| by);
        // Counters of whole things: none has a fraction.
        let value: u64 = value.parse().unwrap_or_default();
        *values.entry(format!("{name}{{{by}}}")).or_default() += value;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_but_for_one_label_and_only_growth_counts() {
        let before = values(
            "# HELP istio_tcp_sent_bytes_total Bytes.\n\
             istio_tcp_sent_bytes_total{reporter=\"source\",source_app=\"x\"} 4\n\
             ambit_capture_packets_total{reason=\"not_tcp\"} 7\n",
        );
        let after = values(
            "istio_tcp_sent_bytes_total{reporter=\"source\",source_app=\"x\"} 5\n\
             istio_tcp_sent_bytes_total{reporter=\"source\",source_app=\"y\"} 6\n\
             istio_tcp_sent_bytes_total{reporter=\"destination\",source_app=\"y\"} 2\n\
             ambit_capture_packets_total{reason=\"not_tcp\"} 7\n\
             process_open_fds 9\n",
        );
        let expected = [
            ("istio_tcp_sent_bytes_total{destination}", 0, 2),
            ("istio_tcp_sent_bytes_total{source}", 4, 11),
        ];
        assert_eq!(difference(&before, &after), expected);
    }
}
