//! Certificates that are renewed, and expire, while requests go on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lab::{Node, Pod};

use super::{
    nginx,
    stage::{Stage, identity},
    steady, until,
};

/// Three lives of a certificate.
const LIMIT: Duration = Duration::from_secs(60);

/// Requests go on, in new connections and in one that stays open, until client and server both
/// have another certificate and the first ones have expired. None may fail. Then a tunnel that
/// wasn't there before is opened, with renewed certificates on both ends.
pub(super) fn renewed_under_traffic(stage: &mut Stage<'_>) -> Result<String> {
    let Stage {
        lab,
        frontend,
        catalog,
        cart,
        batch,
        marker,
        ..
    } = &*stage;
    let ends = [(lab.node("a"), frontend), (lab.node("b"), &catalog.pod)];
    let [first_client, first_server] = ends.map(|(node, pod)| Certificate::of(node, pod));
    let (first_client, first_server) = (first_client?, first_server?);
    let expired = first_client.expires.max(first_server.expires);

    let (renewed, tallies) = steady::during(frontend, catalog.addresses()[0], marker, || {
        until(
            "other certificates, and the end of the first ones",
            LIMIT,
            || {
                let [client, server] = ends.map(|(node, pod)| Certificate::of(node, pod));
                let (client, server) = (client?, server?);
                ensure!(
                    client.serial != first_client.serial,
                    "the client's is still the first"
                );
                ensure!(
                    server.serial != first_server.serial,
                    "the server's is still the first"
                );
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
                ensure!(
                    now > expired,
                    "the first ones are valid for {:.0} s more",
                    expired - now
                );
                Ok((client, server))
            },
        )
    })?;
    let (client, server) = renewed?;
    for tally in &tallies {
        ensure!(tally.requests > 0, "no request was made in {}", tally.kind);
        ensure!(
            tally.failures == 0,
            "{} of {} requests failed in {}: {}",
            tally.failures,
            tally.requests,
            tally.kind,
            tally.first_failure.as_deref().unwrap_or_default()
        );
    }
    nginx::ask(batch, cart, marker).context("a new tunnel, after the renewal")?;

    let made: Vec<_> = tallies
        .iter()
        .map(|tally| format!("{} in {}", tally.requests, tally.kind))
        .collect();
    Ok(format!(
        "0 of {} requests failed while both ends' certificates were renewed and the first expired\n\
         requests: {}; then a new tunnel, from batch to cart\n\
         frontend: serial {} -> {}\n\
         catalog:  serial {} -> {}",
        tallies.iter().map(|tally| tally.requests).sum::<u64>(),
        made.join(", "),
        first_client.serial,
        client.serial,
        first_server.serial,
        server.serial,
    ))
}

/// A workload's certificate, as its node's agent shows it.
struct Certificate {
    serial: String,
    /// In seconds since 1970.
    expires: f64,
}

impl Certificate {
    fn of(node: &Node, pod: &Pod) -> Result<Certificate> {
        let identity = identity(pod);
        let known = node.admin("/certificates")?;
        let mut known = known.as_array().into_iter().flatten();
        let certificate = known.find(|certificate| certificate["identity"] == *identity);
        let serial = certificate.and_then(|certificate| certificate["serial"].as_str());
        let serial =
            serial.with_context(|| format!("node {} has none of {identity}", node.name()))?;
        let expiry = "ambit_certificate_expiry_timestamp_seconds";
        let expires = node.metric(expiry, &[("identity", &identity)])?;
        Ok(Certificate {
            serial: serial.to_owned(),
            expires,
        })
    }
}
