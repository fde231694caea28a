//! Disturbances that no request of those who may connect is to notice.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    Stage,
    stage::{FRIENDS, PORT},
};
use crate::{Error, Lab, Pod, PodSpec, Result, Way, wait};

/// For a change to be in force, or an agent to end, on a machine with other work.
const DEADLINE: Duration = Duration::from_secs(40);
/// Longer than connections stay open of which none may fail.
pub(super) const DRAIN: &str = "15s";

const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: deny-auditor, namespace: shop}\n\
     spec: {action: DENY, rules: [{from: [{source: {principals: \
     [cluster.local/ns/shop/sa/auditor]}}]}]}\n";

/// Texts in place of the policy by which few may connect, none of which may change who does.
const BROKEN: [&str; 5] = [
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: friends, namespace: shop}\n\
     spec: {rules: [{from: [{source: {principal: [everybody]}}]}]}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: friends, namespace: shop}\nspec: {action: PERMIT}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: friends, namespace: shop}\n\
     spec: {rules: [{to: [{operation: {ports: [http]}}]}]}\n",
    "apiVersion: [unfinished\n",
    "\u{0}\u{1}not even text\n",
];

/// A policy that denies the auditor ends its connections and lets in no new one, until it is removed. How long
/// it took to be in force.
///
/// # Errors
/// If it isn't so in time.
pub(super) fn change_policy(stage: &Stage, lab: &Lab) -> Result<Duration> {
    let mut held = Vec::new();
    for (_, server) in stage.servers() {
        let mut connection = stage.auditor.hold(server)?;
        connection.echo().map_err(Error::io("use a connection"))?;
        held.push(connection);
    }
    let applied = Instant::now();
    lab.apply("deny.yaml", DENY)?;
    for mut connection in held {
        let ended = connection.await_end().map_err(|error| error.kind());
        if ended != Err(io::ErrorKind::ConnectionReset) {
            let found = format!("a connection that is denied now ended so: {ended:?}");
            return Err(Error::violated("\"a policy that denies cuts off\"", found));
        }
    }
    let took = applied.elapsed();
    for (way, server) in stage.servers() {
        let told = stage.auditor.call(server)?;
        if told == "echoed" {
            return Err(Error::violated("\"who is denied isn't served\"", way));
        }
    }
    lab.remove("deny.yaml")?;
    for (way, server) in stage.servers() {
        let what = format!("the auditor to be served again, {way}");
        wait::poll(&what, DEADLINE, || match stage.auditor.call(server) {
            Ok(told) if told == "echoed" => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
    }
    Ok(took)
}

/// Pods have these many names in turn: metrics keep what they counted of a name for an hour.
const GUESTS: usize = 4;

/// A pod comes to a node, connects to others and is connected to, and goes.
///
/// # Errors
/// If bytes differ, or a connection fails.
pub(super) fn come_and_go(stage: &Stage, lab: &Lab, number: usize) -> Result<()> {
    let node = if number.is_multiple_of(2) { "a" } else { "b" };
    let name = format!("guest-{}", number % GUESTS);
    let spec = PodSpec::in_namespace("shop").service_account("guest");
    let guest = lab.node(node).pod(&name, spec)?;
    // An agent that doesn't know of the pod yet would take it for one outside the mesh.
    await_known(lab, &guest)?;
    let mut echo = guest.echo(PORT)?;
    let way = stage.auditor.talk(&mut echo, guest.at(PORT))?;
    if let Way::Failed(failure) = way {
        let found = format!("to {name}: {failure}");
        return Err(Error::violated("\"a new pod is served\"", found));
    }
    for (way, server) in stage.servers() {
        let told = guest.call(server)?;
        if told != "echoed" {
            let found = format!("{name}, {way}: {told}");
            return Err(Error::violated("\"a new pod is served\"", found));
        }
    }
    guest.delete()
}

fn await_known(lab: &Lab, pod: &Pod) -> Result<()> {
    for node in lab.nodes() {
        let what = format!("{} to be known on {}", pod.name(), node.name());
        wait::poll(&what, DEADLINE, || {
            let known = node
                .admin("/workloads")
                .map_err(|error| error.to_string())?;
            match known.to_string().contains(pod.uid()) {
                true => Ok(()),
                false => Err(format!("{known}")),
            }
        })?;
    }
    Ok(())
}

/// A broken manifest in place of a policy is told of by every agent, and the policy stays in force.
///
/// # Errors
/// If it isn't told of, or is still once the file is whole again.
pub(super) fn break_manifest(lab: &Lab, number: usize) -> Result<()> {
    let await_problems = |are_there: bool| {
        for node in lab.nodes() {
            let what = format!(
                "problems on {} to be told, or not: {are_there}",
                node.name()
            );
            wait::poll(&what, DEADLINE, || {
                let told = node.admin("/problems").map_err(|error| error.to_string())?;
                match told.to_string().contains(FRIENDS.0) == are_there {
                    true => Ok(()),
                    false => Err(told.to_string()),
                }
            })?;
        }
        Ok(())
    };
    lab.apply(FRIENDS.0, BROKEN[number % BROKEN.len()])?;
    await_problems(true)?;
    lab.apply(FRIENDS.0, FRIENDS.1)?;
    await_problems(false)
}

/// The serial numbers of the certificates that agents have, by identity and node.
fn serials(lab: &Lab) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for node in lab.nodes() {
        let told = node.admin("/certificates")?;
        for certificate in told.as_array().into_iter().flatten() {
            let text = |field: &str| certificate[field].to_string();
            all.push((
                format!("{} on {}", text("identity"), node.name()),
                text("serial"),
            ));
        }
    }
    Ok(all)
}

/// Waits until every certificate that agents have now has been renewed. How many.
///
/// # Errors
/// If one isn't in time.
pub(super) fn await_renewal(lab: &Lab) -> Result<usize> {
    let before = serials(lab)?;
    wait::poll("certificates to be renewed", DEADLINE, || {
        let now = serials(lab).map_err(|error| error.to_string())?;
        let still: Vec<_> = now.iter().filter(|it| before.contains(it)).collect();
        match still.is_empty() {
            true => Ok(now.len()),
            false => Err(format!("{still:?}")),
        }
    })
}
