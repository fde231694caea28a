//! `startup`: from the creation of a pod to its first answer through the mesh.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{
    measurement::{Metric, Placement, Unit},
    outcome::Figure,
    probe,
    stage::{self, Stage},
};

/// How long a pod may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Makes a pod beside the client: namespace, interface, manifest, and its sidecar where it has one.
/// Its application starts at once, asks the server on the other node, and asks again if refused.
///
/// # Errors
/// The pod can't be made, or gets no answer.
pub(super) fn run(stage: &mut Stage<'_>, round: u32) -> Result<Vec<Figure>> {
    let server = stage.address(Placement::CrossNode);
    let name = format!("fresh-{round}");
    let begun = Instant::now();
    let pod = stage.client.node().pod(&name, stage::spec(&name))?;
    stage.data_plane.add(&pod)?;
    pod.in_namespace(|| probe::until_answered(server, LIMIT))?
        .with_context(|| format!("a new pod got no answer from {server}"))?;
    let took = begun.elapsed();

    stage.data_plane.remove(&pod);
    pod.delete()?;
    Ok(vec![Figure {
        metric: Metric::P50,
        unit: Unit::Milliseconds,
        value: took.as_secs_f64() * 1e3,
    }])
}
