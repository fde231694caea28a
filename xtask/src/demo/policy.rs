//! A policy that turns an allowed call into a denied one, and back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{
    nginx,
    stage::{self, Stage, identity},
    until,
};

/// An AuthorizationPolicy by which only `batch` may call the catalog.
const POLICY: &str = "only-batch.yaml";
/// How long a change of policy may take to be felt.
const FELT: Duration = Duration::from_secs(20);

/// Applies the policy and takes it away again, whatever comes of it.
pub(super) fn denies_and_allows(stage: &mut Stage<'_>) -> Result<String> {
    let Stage {
        frontend,
        catalog,
        marker,
        lab,
        ..
    } = &*stage;
    nginx::ask(frontend, catalog, marker).context("before the policy")?;
    let before = denials(stage)?;

    let applied = Instant::now();
    stage::apply(lab, POLICY)?;
    let denied = until("a refusal", FELT, || refused(stage));
    let denied_after = applied.elapsed();
    let batch = nginx::ask(&stage.batch, catalog, marker);

    let removed = Instant::now();
    lab.remove(POLICY)?;
    let allowed = until("an answer", FELT, || nginx::ask(frontend, catalog, marker));
    let allowed_after = removed.elapsed();

    let curl_said = denied?;
    batch.context("the policy allows batch, which got no answer")?;
    allowed.context("after the policy")?;
    let counted = denials(stage)? - before;
    ensure!(
        counted > 0.0,
        "the agent of node b counts no denied connection"
    );
    Ok(format!(
        "frontend denied after {:.1} s, batch not; frontend allowed {:.1} s after its removal\n\
         {POLICY}: {curl_said}\n\
         node b: istio_tcp_connections_closed_total{{response_flags=\"DENY\"}} +{counted}",
        denied_after.as_secs_f64(),
        allowed_after.as_secs_f64(),
    ))
}

/// What curl says of a connection that was refused at every address, and not of one that was lost.
fn refused(stage: &Stage<'_>) -> Result<String> {
    /// curl(1): "Failure in receiving network data", as a reset is, and "The server did not reply
    /// anything".
    const REFUSALS: [&str; 2] = ["(56)", "(52)"];

    let mut said = String::new();
    for address in stage.catalog.addresses() {
        said = match nginx::curl(&stage.frontend, address, &stage.marker) {
            Ok(answer) => bail!("{address} still answers: {answer:?}"),
            Err(error) => error.to_string(),
        };
        ensure!(REFUSALS.iter().any(|code| said.contains(code)), "{said}");
    }
    Ok(said)
}

/// Connections of the frontend that the agent of node b has denied.
fn denials(stage: &Stage<'_>) -> Result<f64> {
    let labels = [
        ("source_principal", identity(&stage.frontend)),
        ("destination_principal", identity(&stage.catalog.pod)),
        ("response_flags", "DENY".to_owned()),
    ];
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Ok(stage
        .lab
        .node("b")
        .metric("istio_tcp_connections_closed_total", &labels)?)
}
