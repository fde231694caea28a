use std::sync::Arc;

use ambit_common::passed::Path;

use super::*;
use crate::telemetry::{
    ConnectionDescription, ConnectionReport, Outcome, Transfer,
    fixtures::{denied_by, description, metrics, stranger},
};

#[test]
fn an_edge_counts_what_is_between_two_workloads() {
    let metrics = metrics();
    let open = |description| {
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&metrics, description, transfer.clone());
        (report, transfer)
    };
    let (held, transfer) = open(description());
    transfer.add_sent(5);
    for round_trip in [100, 300] {
        let (report, transfer) = open(ConnectionDescription {
            passed: true,
            hbone_address: None,
            ..description()
        });
        transfer.add_received(10);
        transfer.measured(Path {
            round_trip,
            retransmitted: 2,
        });
        report.finish(Outcome::Complete);
    }
    open(description())
        .0
        .finish(Outcome::Denied(&denied_by("lock-down")));
    open(description()).0.finish(Outcome::Failed {
        flags: ResponseFlags::Connect,
        error: &"no way there",
    });
    let (plain, _) = open(stranger());

    let graph = metrics.graph();
    let [unknown, edge] = &graph.edges[..] else {
        panic!("{graph:?}");
    };
    assert_eq!(unknown.source.workload, None);
    assert!(!unknown.secured);
    assert_eq!(edge.source.workload.as_deref(), Some("client"));
    assert_eq!(edge.destination.namespace.as_deref(), Some("shop"));
    assert_eq!(
        edge.destination.identity.as_deref(),
        Some("spiffe://cluster.local/ns/shop/sa/server")
    );
    assert_eq!(edge.service.as_deref(), Some("shop/front"));
    assert_eq!(
        edge.connections,
        ConnectionsView {
            opened: 5,
            open: 1,
            denied: 1,
            failed: 1,
            local: 2,
            passed: 2,
            bytes_sent: 5,
            bytes_received: 20,
            rtt_us: Some(200),
            retransmits: 4,
        }
    );
    assert_eq!(edge.requests, RequestsView::default());
    drop((held, plain));
    assert_eq!(metrics.graph().edges[1].connections.open, 0);
}
