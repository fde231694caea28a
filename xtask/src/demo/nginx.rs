//! nginx in a pod.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Child, Lab, Pod};

use super::until;

const PORT: u16 = 8080;
/// How long nginx may take to listen.
const READY: Duration = Duration::from_secs(20);

/// A pod with a running nginx.
pub(super) struct Server {
    pub(super) pod: Pod,
    _nginx: Child,
}

impl Server {
    /// Starts nginx in the foreground, with configuration and process id in the lab's directory,
    /// and waits until it listens.
    pub(super) fn start(lab: &Lab, pod: Pod) -> Result<Server> {
        let directory = lab.directory().join(format!("nginx-{}", pod.name()));
        fs::create_dir(&directory)?;
        let (configuration, pid) = (directory.join("nginx.conf"), directory.join("pid"));
        let listen: String = addresses(&pod)
            .iter()
            .map(|address| format!("listen {address}; "))
            .collect();
        let text = format!(
            "daemon off;\n\
             pid {pid};\n\
             error_log stderr;\n\
             events {{}}\n\
             http {{\n  \
               access_log off;\n  \
               keepalive_requests 1000000;\n  \
               server {{\n    \
                 {listen}\n    \
                 location / {{ return 200 \"{name} to $remote_addr: $http_x_marker\\n\"; }}\n  \
               }}\n\
             }}\n",
            pid = pid.display(),
            name = pod.name(),
        );
        fs::write(&configuration, text)?;
        let mut nginx = pod
            .command("nginx")
            // Until it has read the configuration it would write to the machine's own log.
            .args(["-e", "stderr", "-c"])
            .arg(&configuration)
            .spawn()?;
        // It writes its id once its sockets listen.
        until("nginx listening", READY, || {
            ensure!(nginx.is_running(), "it ended: {}", nginx.stderr());
            fs::metadata(&pid).map(drop).with_context(|| nginx.stderr())
        })?;
        Ok(Server { pod, _nginx: nginx })
    }

    /// Where it listens: a port of each of the pod's addresses.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.pod)
    }
}

fn addresses(pod: &Pod) -> Vec<SocketAddr> {
    pod.all_at(PORT)
}

/// Makes a request by curl from `client` to each address of `server`, with `marker` in a header.
/// Each must be answered 200, with the marker, and to the client's own address: nobody stands in
/// for it. Returns how many requests there were.
pub(super) fn ask(client: &Pod, server: &Server, marker: &str) -> Result<usize> {
    let addresses = server.addresses();
    for address in &addresses {
        let own = address_like(client, address.ip())?;
        let answer = curl(client, *address, marker)?;
        let expected = format!("{} to {own}: {marker}\n", server.pod.name());
        ensure!(
            answer == expected,
            "{address} answered {answer:?} instead of {expected:?}"
        );
    }
    Ok(addresses.len())
}

/// Makes one request; the error is curl's own.
pub(super) fn curl(client: &Pod, address: SocketAddr, marker: &str) -> Result<String> {
    let (header, url) = (format!("X-Marker: {marker}"), format!("http://{address}/"));
    let curl = [
        "-sS",
        "--fail",
        "--max-time",
        "15",
        "--header",
        &header,
        &url,
    ];
    let output = client.run("curl", curl)?;
    let said = output.stderr.trim();
    ensure!(
        output.succeeded(),
        "{said} (from {} to {address})",
        client.name()
    );
    Ok(output.text())
}

/// The pod's address of the same family as another.
fn address_like(pod: &Pod, other: IpAddr) -> Result<IpAddr> {
    let mut own = pod.addresses().iter();
    let found = own.find(|address| address.is_ipv4() == other.is_ipv4());
    found
        .copied()
        .with_context(|| format!("{} has no address like {other}", pod.name()))
}
