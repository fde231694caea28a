use super::*;
use crate::{
    policy::Denied,
    telemetry::{
        ConnectionReport, Outcome, Reporter, ResponseFlags, Transfer,
        fixtures::{denied_by, description, metrics, object, value},
    },
};

fn everything() -> FlowFilter {
    FlowFilter::default()
}

fn observe(metrics: &Metrics) -> Observation {
    metrics.flows().observe(everything()).unwrap()
}

/// One connection, from its start to its end.
fn connect(metrics: &Arc<Metrics>, outcome: Outcome<'_>) {
    let transfer = Arc::<Transfer>::default();
    let report = ConnectionReport::open(metrics, description(), transfer.clone());
    transfer.add_sent(300);
    transfer.add_received(20);
    report.finish(outcome);
}

async fn told(observation: &mut Observation) -> Vec<Arc<FlowView>> {
    let mut events = Vec::new();
    assert_eq!(observation.next(&mut events, 100).await, 0);
    events
}

#[test]
fn nothing_is_made_while_nobody_observes() {
    let flows = Arc::<Flows>::default();
    flows.tell(|| panic!("nobody asked"));
    drop(flows.observe(everything()).unwrap());
    flows.tell(|| panic!("who asked is gone"));
}

#[tokio::test]
async fn a_connection_is_told_of_when_it_opens_and_how_it_ends() {
    let metrics = metrics();
    let mut observation = observe(&metrics);
    let denied = denied_by("lock-down");
    let several = Denied::NotAllowed {
        policies: [object("shop", "a"), object("shop", "b")].into(),
        http_rules: Arc::default(),
    };
    let failed = |flags| Outcome::Failed {
        flags,
        error: &"no way there",
    };
    for (outcome, verdict, flags, policy, reason) in [
        (Outcome::Complete, Verdict::Allowed, "-", None, None),
        (
            Outcome::Denied(&denied),
            Verdict::Denied,
            "DENY",
            Some("shop/lock-down"),
            Some(denied.to_string()),
        ),
        (
            Outcome::Denied(&several),
            Verdict::Denied,
            "DENY",
            Some("shop/a,shop/b"),
            Some(several.to_string()),
        ),
        // The other agent's policies.
        (
            failed(ResponseFlags::Deny),
            Verdict::Denied,
            "DENY",
            None,
            Some("no way there".into()),
        ),
        (
            failed(ResponseFlags::Connect),
            Verdict::Failed,
            "CONNECT",
            None,
            Some("no way there".into()),
        ),
    ] {
        connect(&metrics, outcome);
        let events = told(&mut observation).await;
        let [opened, closed] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(opened.event, FlowEvent::Opened);
        assert_eq!((opened.verdict, opened.bytes_sent), (None, 0));
        assert_eq!(closed.event, FlowEvent::Closed);
        assert_eq!(closed.verdict, Some(verdict));
        assert_eq!(closed.flags.as_deref(), Some(flags));
        assert_eq!(closed.policy.as_deref(), policy);
        assert_eq!(closed.reason, reason);
        assert_eq!((closed.bytes_sent, closed.bytes_received), (300, 20));
        for event in [opened, closed] {
            assert_eq!(event.connection, opened.connection);
            assert_eq!(event.reporter, Reporter::Source);
            assert_eq!(event.source.as_deref(), Some("web/client-0"));
            assert_eq!(event.destination.as_deref(), Some("shop/server-0"));
            assert_eq!(
                event.destination_address,
                Some(([10, 0, 1, 1], 8080).into())
            );
            assert_eq!(event.tunnel, Some(([192, 0, 2, 2], 15_008).into()));
            assert_eq!(event.service.as_deref(), Some("shop/front"));
        }
    }
}

#[tokio::test]
async fn what_is_open_can_be_told_to_who_comes_later() {
    let metrics = metrics();
    let transfer = Arc::<Transfer>::default();
    let report = ConnectionReport::open(&metrics, description(), transfer.clone());
    transfer.add_sent(7);
    let mut observation = observe(&metrics);
    let open: Vec<_> = metrics.open_flows().collect();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].event, open[0].bytes_sent), (FlowEvent::Open, 7));
    report.finish(Outcome::Complete);
    let closed = &told(&mut observation).await[0];
    assert_eq!(closed.connection, open[0].connection);
    assert_eq!(metrics.open_flows().count(), 0);
}

#[tokio::test]
async fn who_reads_too_slowly_loses_events_and_learns_how_many() {
    let metrics = metrics();
    let mut slow = observe(&metrics);
    let filter = FlowFilter {
        verdict: Some(Verdict::Denied),
        ..everything()
    };
    let mut choosy = metrics.flows().observe(filter).unwrap();
    let connections = WAITING;
    for _ in 0..connections {
        connect(&metrics, Outcome::Complete);
    }
    connect(&metrics, Outcome::Denied(&denied_by("lock-down")));
    let mut events = Vec::new();
    let lost = slow.next(&mut events, usize::MAX).await;
    assert_eq!(events.len(), WAITING);
    let all = 2 * (connections as u64 + 1);
    assert_eq!(lost, all - WAITING as u64);
    // What an observer doesn't want takes none of its room.
    assert_eq!(told(&mut choosy).await.len(), 1);
    let counted = value(&metrics, "ambit_observed_events_lost_total", &[]);
    assert_eq!(counted, Some(lost as f64));
    connect(&metrics, Outcome::Complete);
    assert_eq!(told(&mut slow).await.len(), 2);
}

#[test]
fn a_place_is_free_again_when_its_observer_is_gone() {
    let metrics = metrics();
    let mut observations: Vec<_> = (0..MOST_OBSERVERS).map(|_| observe(&metrics)).collect();
    assert!(metrics.flows().observe(everything()).is_err());
    let counted = |name| value(&metrics, name, &[]);
    assert_eq!(counted("ambit_observers_refused_total"), Some(1.0));
    assert_eq!(counted("ambit_observers"), Some(MOST_OBSERVERS as f64));
    observations.pop();
    observations.push(observe(&metrics));
    observations.clear();
    assert_eq!(counted("ambit_observers"), Some(0.0));
}
