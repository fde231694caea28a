//! What all stories are played with.

use std::{fs, path::PathBuf, time::Duration};

use lab::{Lab, Node, Pod, PodSpec, Result, ambit_program};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A pod of namespace `shop`, with an account of its name.
pub(crate) fn pod(lab: &Lab, node: &str, name: &str) -> Result<Pod> {
    let spec = PodSpec::in_namespace("shop").service_account(name);
    lab.node(node).pod(name, spec)
}

/// A pod that the mesh has nothing to do with.
pub(crate) fn stranger(lab: &Lab, node: &str, name: &str) -> Result<Pod> {
    lab.namespace("legacy").not_enrolled()?;
    lab.node(node).pod(name, PodSpec::in_namespace("legacy"))
}

/// Connections that were refused for a reason, by whose they were.
pub(crate) fn refused(node: &Node, reason: &str, pod: &str) -> f64 {
    let labels = [("reason", reason), ("pod", pod)];
    node.metric("ambit_connections_refused_total", &labels)
        .unwrap()
}

/// How many file descriptors a process has.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A program that runs `ambit` in other circumstances: `around` is the text of a shell script, in which
/// `ambit "$@"` runs it.
pub(crate) fn wrapped(lab: &Lab, around: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let script = lab.directory().join("ambit");
    let text = around.replace(
        "ambit \"$@\"",
        &format!("{} \"$@\"", ambit_program()?.display()),
    );
    fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Ok(script)
}
