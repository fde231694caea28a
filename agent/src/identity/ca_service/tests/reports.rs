//! Reports of pods, over the wire.

use std::sync::Mutex;

use super::*;
use crate::identity::pod_report::{MAX_PODS, PodReport, PodState};

/// Keeps what was reported; takes nothing of node-b.
#[derive(Default)]
struct Kept(Mutex<Vec<(String, PodReport)>>);

impl PodReports for Kept {
    fn take<'a>(
        &'a self,
        node: &'a str,
        report: PodReport,
    ) -> BoxFuture<'a, Result<(), ReportError>> {
        let taken = if node == "node-b" {
            Err(ReportError::NotYours("not on node-b".to_owned()))
        } else {
            self.0.lock().unwrap().push((node.to_owned(), report));
            Ok(())
        };
        Box::pin(async { taken })
    }
}

fn report(pods: usize) -> PodReport {
    let state = PodState {
        uid: "uid".into(),
        reason: "NoInterface".into(),
        ..PodState::default()
    };
    PodReport {
        pods: vec![state; pods],
        ..PodReport::default()
    }
}

#[tokio::test]
async fn a_report_is_taken_from_a_node_that_its_token_proves() {
    let kept = Arc::new(Kept::default());
    let control = Control::taking(Some(kept.clone())).await;
    let sent = report(2);
    control
        .client("token-a")
        .report_pods(sent.clone())
        .await
        .unwrap();
    assert_eq!(*kept.0.lock().unwrap(), [("node-a".to_owned(), sent)]);
    for (token, report, expected) in [
        ("wrong", report(1), "refused the token"),
        ("token-b", report(1), "not on node-b"),
        (
            "token-w",
            report(1),
            "shop/w is a waypoint: only agents report",
        ),
        ("token-a", report(MAX_PODS + 1), "is the most"),
    ] {
        let refused = control.client(token).report_pods(report).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{token}: {refused}");
        assert!(!refused.is_unknown_call(), "{token}");
    }
    assert_eq!(kept.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_authority_that_takes_no_reports_says_so() {
    let control = Control::start().await;
    let refused = control.client("token-a").report_pods(report(1)).await;
    assert!(refused.unwrap_err().is_unknown_call());
}
