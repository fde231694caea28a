//! What an agent tells control of its node's pods, so that the pods can say it themselves.

mod ledger;
mod standing;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, Instant},
};

use self::{ledger::Ledger, standing::standings};
use crate::{
    capture::BoundPods,
    discovery::store::Store,
    identity::ca_client::{CaClient, Error},
};

/// For how long after a change others are awaited: a report each second at most, however much happens.
const GATHER: Duration = Duration::from_secs(1);
/// How often to look if nothing is told: interfaces come and go without the store.
const LOOK: Duration = Duration::from_secs(5);
/// A report that failed is tried again after about this long, then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A thousand agents ask a control that is back 17 times a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// When an authority that takes no reports is asked again: it may be newer by then.
const UNKNOWN: Duration = Duration::from_secs(15 * 60);

/// Reports until it is dropped. What can't be told now is told later.
pub async fn report(node: Arc<str>, store: Arc<Store>, bound: BoundPods, client: CaClient) {
    let mut updates = store.subscribe();
    let mut ledger = Ledger::default();
    let mut told = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let why_not = |uid: &_| bound.why_not(uid).map(|reason| reason.to_string());
        let now = standings(&store, &node, |uid| bound.contains(uid), why_not);
        let Some(report) = ledger.due(&now, Instant::now()) else {
            tokio::select! {
                update = updates.recv() => if matches!(update, Err(RecvError::Closed)) { return },
                () = time::sleep(LOOK) => {}
            }
            time::sleep(GATHER).await;
            while updates.try_recv().is_ok() {}
            continue;
        };
        let wait = match client.report_pods(report.clone()).await {
            Ok(()) => {
                ledger.taken(report);
                (told, pause) = (None, FIRST_PAUSE);
                GATHER
            }
            Err(error) => {
                log(&error, &mut told);
                let wait = if error.is_unknown_call() {
                    UNKNOWN
                } else {
                    pause
                };
                pause = LONGEST_PAUSE.min(pause * 2);
                wait.mul_f64(rand::random_range(0.8..1.2))
            }
        };
        time::sleep(wait).await;
    }
}

/// Once for each thing that is wrong.
fn log(error: &Error, told: &mut Option<String>) {
    let text = error.to_string();
    if told.as_ref() == Some(&text) {
        return;
    }
    if error.is_unknown_call() {
        tracing::info!(
            "the certificate authority takes no reports of pods, so they don't say whether they are enrolled"
        );
    } else {
        tracing::warn!("pods don't say whether they are enrolled: {text}; it is tried again");
    }
    *told = Some(text);
}
