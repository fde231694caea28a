//! One pod with its sidecar: process, rules and files.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::atomic::Ordering,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    USER,
    adapter::{Adapter, Ready, User},
    certificates::Credentials,
    rules::Rules,
    template::{self, CONFIGURATION, Values},
};
use crate::{Child, Error, Place, Pod, Result, sys, wait};

/// How long a proxy may take until it is ready, beside two hundred others on two cores.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long kubelet waits between SIGTERM and SIGKILL, if the pod says nothing else.
const GRACE: Duration = Duration::from_secs(30);
/// How long one attempt to ask whether it is ready may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// A pod with its sidecar. Dropping it takes the sidecar away, process first, unless the lab is
/// kept.
#[derive(Debug)]
pub(super) struct Member {
    child: Child,
    rules: Rules,
    values: Values,
    ready: Ready,
    directory: TempDir,
}

impl Member {
    /// Writes files and rules, and starts the proxy.
    pub(super) fn start(pod: &Pod, adapter: &Adapter, credentials: &Credentials) -> Result<Self> {
        let v6 = pod.addresses().iter().find(|address| address.is_ipv6());
        if let (Some(address), false) = (v6, adapter.ipv6) {
            return Err(Error::Unsupported(format!(
                "{} can't be the sidecar of pod {}: it would leave {address} in plaintext (its \
                 adapter says `ipv6: false`); use a lab of IPv4",
                adapter.name(),
                pod.name()
            )));
        }
        let directory = tempfile::Builder::new()
            .prefix("sidecar-")
            .tempdir_in(&pod.shared.directory)
            .map_err(Error::io("create a sidecar's directory"))?;
        let values = Values::new(pod, adapter, &credentials.identity, directory.path());
        for (file, text) in [
            ("certificate", &credentials.certificate),
            ("key", &credentials.key),
            (
                "certificate_and_key",
                &format!("{}{}", credentials.certificate, credentials.key),
            ),
            ("ca", &credentials.ca),
            (CONFIGURATION, &filled(&adapter.configuration, &values)?),
        ] {
            write(&directory.path().join(file), text)?;
        }
        let rules = Rules::install(pod, pod.addresses(), adapter.ready.port)?;
        Ok(Self {
            child: spawn(pod, adapter, &values)?,
            rules,
            values,
            ready: adapter.ready.clone(),
            directory,
        })
    }

    /// Waits until the proxy is ready.
    pub(super) fn await_ready(&mut self) -> Result<()> {
        let place = self.rules.place().clone();
        let ready = &self.ready;
        let what = format!("the sidecar of {} being ready", place.label);
        let child = &mut self.child;
        let alive = wait::poll(&what, READY_DEADLINE, || {
            // Looked at first: what answers then is this proxy, not one that has just ended.
            if !child.is_running() {
                return Ok(false);
            }
            let answer = place.in_namespace(|| probe(ready));
            match answer.map_err(|error| error.to_string())? {
                Ok(()) => Ok(true),
                Err(error) => Err(format!("{error}; stderr {:?}", child.stderr())),
            }
        })?;
        if alive {
            return Ok(());
        }
        Err(Error::malformed(
            what,
            format!("it has ended; stderr {:?}", self.child.stderr()),
        ))
    }

    /// Ends the proxy and starts it again.
    pub(super) fn restart(&mut self, adapter: &Adapter) -> Result<()> {
        self.end()?;
        self.child = spawn(self.rules.place(), adapter, &self.values)?;
        self.await_ready()
    }

    /// Ends the proxy as kubelet does. It isn't reaped yet, so its process group can't be another's.
    fn end(&mut self) -> Result<()> {
        let pid = self.pid();
        let doing = || format!("end the sidecar of {}", self.rules.place().label);
        self.child.signal(libc::SIGTERM)?;
        sys::wait_for_exit(pid, GRACE).map_err(Error::io(doing()))?;
        // What it had started with it, and itself if it hasn't listened.
        sys::signal_group(pid, libc::SIGKILL).map_err(Error::io(doing()))?;
        sys::wait_for_exit(pid, GRACE).map_err(Error::io(doing()))?;
        Ok(())
    }

    pub(super) fn namespace(&self) -> &str {
        self.rules.place().namespace()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let kept = self.rules.place().shared.kept.load(Ordering::Relaxed);
        self.directory.disable_cleanup(kept);
    }
}

/// The processes of the process groups that `leaders` lead. Each member's proxy leads one.
pub(super) fn processes_of_groups(leaders: &[u32]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        process_group(&stat).is_some_and(|group| leaders.contains(&group))
    })
    .collect()
}

/// The process group in the text of `/proc/<pid>/stat` (proc(5)); the name before may be anything.
fn process_group(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(2)?.parse().ok()
}

fn spawn(place: &Place, adapter: &Adapter, values: &Values) -> Result<Child> {
    let mut words = Vec::new();
    if adapter.user == User::Proxy {
        let user = USER.to_string();
        words.extend(["setpriv", "--reuid", &user, "--regid", &user].map(String::from));
        // The lab's directory is root's alone.
        words.extend(
            [
                "--clear-groups",
                "--inh-caps=-all,+dac_read_search",
                "--ambient-caps=-all,+dac_read_search",
                "--",
            ]
            .map(String::from),
        );
    }
    for word in &adapter.command {
        words.push(filled(word, values)?);
    }
    let mut command = place.command(&words[0]).args(&words[1..]);
    for (name, value) in &adapter.environment {
        command = command.env(name, filled(value, values)?);
    }
    command.spawn()
}

/// Asks, in the calling thread's namespace, whether a proxy is ready.
fn probe(ready: &Ready) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ready.port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_DEADLINE)?;
    let Some(path) = &ready.path else {
        return Ok(());
    };
    stream.set_read_timeout(Some(PROBE_DEADLINE))?;
    stream.set_write_timeout(Some(PROBE_DEADLINE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut status = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut status)?;
    if status.ends_with(b" 200") {
        return Ok(());
    }
    let status = String::from_utf8_lossy(&status);
    Err(io::Error::other(format!("{path} is answered by {status}")))
}

fn filled(text: &str, values: &Values) -> Result<String> {
    // Adapters are checked when they are read.
    template::fill(text, |name| values.get(name))
        .map_err(|name| Error::malformed("an adapter", format!("{{{name}}} has no value")))
}

/// Writes a new file that only root may read.
fn write(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(Error::path("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_group_is_found_behind_any_name() {
        let table = [
            ("71 (haproxy) S 70 71 71 0 -1", Some(71)),
            ("72 (a) b (c) R 1 70 71 0 -1", Some(70)),
            ("", None),
        ];
        for (stat, expected) in table {
            assert_eq!(process_group(stat), expected, "{stat}");
        }
    }
}
