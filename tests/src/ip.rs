//! `ip`, fed many commands at a time: one fork a namespace, not one an address.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{Error, Result, sys, wait};

/// How long an interface may take to become operational.
const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// Where `ip netns` keeps a namespace.
pub(crate) fn namespace_path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Runs `commands` (each an `ip` command line without `ip`) outside any lab namespace.
///
/// Only for commands that make things inside namespaces: `netns add`, and veth pairs both of
/// whose ends are born elsewhere.
pub(crate) fn outside(commands: &[String]) -> Result<()> {
    batch(Command::new("ip").arg("-batch"), "ip", commands).map(drop)
}

/// Runs `commands` in a namespace and returns what they print.
pub(crate) fn inside(namespace: &str, commands: &[String]) -> Result<String> {
    batch(
        Command::new("ip").args(["-n", namespace, "-batch"]),
        &format!("ip -n {namespace}"),
        commands,
    )
}

/// Waits until interfaces are operational: before that they drop packets, and IPv6 has no routes.
///
/// `shown` is what `link show` has said about all of them already, if it was asked.
pub(crate) fn await_links(namespace: &str, interfaces: &[&str], shown: &str) -> Result<()> {
    let all_up = |shown: &str| shown.matches("state UP").count() == interfaces.len();
    if all_up(shown) {
        return Ok(());
    }
    let commands: Vec<_> = interfaces
        .iter()
        .map(|interface| format!("link show dev {interface}"))
        .collect();
    let what = format!("{} of {namespace} coming up", interfaces.join(" and "));
    wait::poll(&what, LINK_DEADLINE, || {
        let shown = inside(namespace, &commands).map_err(|error| error.to_string())?;
        if all_up(&shown) { Ok(()) } else { Err(shown) }
    })
}

/// Writes settings below `/proc/sys/net` of a namespace.
pub(crate) fn sysctl(namespace: &str, settings: &[(String, &str)]) -> Result<()> {
    in_namespace(namespace, || {
        for (name, value) in settings {
            let path = Path::new("/proc/sys/net").join(name);
            fs::write(&path, value).map_err(Error::path("write", &path))?;
        }
        Ok(())
    })?
}

/// Runs a closure on a thread of its own in a namespace. A panic in it is the caller's.
pub(crate) fn in_namespace<T: Send>(namespace: &str, run: impl FnOnce() -> T + Send) -> Result<T> {
    let path = namespace_path(namespace);
    let file = File::open(&path).map_err(Error::path("open", &path))?;
    thread::scope(|scope| {
        let enter_and_run = || {
            sys::enter_network_namespace(&file).map_err(Error::path("enter", &path))?;
            Ok(run())
        };
        match scope.spawn(enter_and_run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn batch(command: &mut Command, name: &str, commands: &[String]) -> Result<String> {
    feed(command.arg("-"), name, &commands.join("\n"))
}

/// Runs a program of the host with `input` and returns what it prints.
pub(crate) fn feed(command: &mut Command, name: &str, input: &str) -> Result<String> {
    let start = |source| Error::Start {
        command: name.into(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on its standard error, which says more than EPIPE.
        let _ = stdin
            .write_all(input.as_bytes())
            .and_then(|()| stdin.write_all(b"\n"));
    }
    let output = child
        .wait_with_output()
        .map_err(Error::io(format!("wait for {name}")))?;
    if !output.status.success() {
        return Err(Error::Failed {
            command: format!("{name} << {input:?}"),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
