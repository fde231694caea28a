//! What goes between two nodes, judged as it goes: nothing is kept, so it can be watched for hours.

use std::{
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use memchr::memmem::Finder;

use crate::{Error, Lab, NODE_INTERFACE, Packet, Result, capture, sys};

/// What mesh traffic may be between nodes: tunnels of agents and waypoints, and calls to the authority.
const TLS_PORTS: [u16; 3] = [15008, 15088, 15012];
/// The longest frame: segmentation offload leaves 64 KiB together.
const FRAME: usize = 128 * 1024;
/// Of the kernel's queue, in bytes: more than all that a lab's load sends in the time for which the
/// thread that reads may have to wait for a processor.
const QUEUE: libc::c_int = 64 << 20;
/// How often the thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// Violations that are told; all are counted.
const TOLD: usize = 5;

/// What has been seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Packets of the mesh.
    pub packets: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Packets of pods outside the mesh that showed the marker: whoever sees it there would see it
    /// elsewhere.
    pub marked_outside: u64,
    /// Packets that should not be, the first of them in words.
    pub violations: u64,
    told: Vec<String>,
}

/// A watch over the wire between two nodes.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    stop: AtomicBool,
    seen: Mutex<Seen>,
    /// Packets that the kernel had no room for, and what kept us from reading.
    lost: Mutex<(u64, Option<io::Error>)>,
}

impl Wire {
    /// Begins to watch; packets of the addresses `outside`, which aren't in the mesh, may be what they like.
    ///
    /// # Errors
    /// If the system has no packet socket for us, or the lab hasn't two nodes.
    pub fn watch(lab: &Lab, marker: &'static str, outside: &[IpAddr]) -> Result<Wire> {
        let [first, _] = lab.nodes() else {
            let what = "only the wire of two nodes can be watched";
            return Err(Error::Unsupported(what.into()));
        };
        let socket = first.in_namespace(|| sys::packet_socket(NODE_INTERFACE, QUEUE, LOOK))?;
        let shared = Arc::new(Shared {
            socket: socket.map_err(Error::io("watch the wire"))?,
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            lost: Mutex::default(),
        });
        let (its, outside) = (Arc::clone(&shared), outside.to_vec());
        let thread = thread::spawn(move || its.run(marker, &outside));
        Ok(Wire {
            shared,
            thread: Some(thread),
        })
    }

    /// What has been seen until now.
    ///
    /// # Errors
    /// If there was a packet that should not be, or one was missed.
    pub fn check(&self) -> Result<Seen> {
        let seen = lock(&self.shared.seen).clone();
        let mut lost = lock(&self.shared.lost);
        lost.0 += sys::packets_lost(&self.shared.socket).map_err(Error::io("count packets"))?;
        let wrong = match (&*lost, seen.violations) {
            ((_, Some(error)), _) => Some(format!("it can't be read: {error}")),
            ((0, None), 0) => None,
            ((0, None), violations) => Some(format!(
                "{violations} packets should not be there: {}",
                seen.told.join("; ")
            )),
            ((lost, None), _) => Some(format!("{lost} packets were missed")),
        };
        match wrong {
            None => Ok(seen),
            Some(cause) => Err(Error::violated("\"no plaintext between nodes\"", cause)),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, marker: &str, outside: &[IpAddr]) {
        let finder = Finder::new(marker);
        let mut buffer = vec![0; FRAME];
        let read = |buffer: &mut [u8]| File::from(self.socket.try_clone()?).read(buffer);
        while !self.stop.load(Ordering::Relaxed) {
            match read(&mut buffer) {
                Ok(length) => {
                    if let Some(packet) = capture::parse_frame(&buffer[..length]) {
                        lock(&self.seen).add(&packet, &finder, outside);
                    }
                }
                Err(error) if is_time_out(&error) => {}
                Err(error) => {
                    lock(&self.lost).1 = Some(error);
                    return;
                }
            }
        }
    }
}

impl Seen {
    fn add(&mut self, packet: &Packet, marker: &Finder<'_>, outside: &[IpAddr]) {
        let is_marked = marker.find(&packet.payload).is_some();
        if outside.iter().any(|address| packet.has_address(*address)) {
            self.marked_outside += u64::from(is_marked);
            return;
        }
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        let is_tls = TLS_PORTS.iter().any(|port| packet.has_port(*port));
        if is_marked || packet.is_tcp() && !is_tls {
            self.violations += 1;
            if self.told.len() < TOLD {
                let what = if is_marked { ", with the marker" } else { "" };
                self.told.push(format!("{packet}{what}"));
            }
        }
    }
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::Transport;

    const INSIDE: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2)),
        IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)),
    ];
    const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 9));

    #[test]
    fn plaintext_of_the_mesh_is_a_violation_and_of_others_the_proof_that_it_would_be_seen() {
        for (source, port, payload, violations, marked_outside) in [
            (INSIDE[0], 15008, "sealed", 0, 0),
            (INSIDE[0], 15012, "sealed", 0, 0),
            (INSIDE[0], 8080, "", 1, 0),
            (INSIDE[0], 15008, "a marker", 1, 0),
            (OUTSIDE, 8080, "a marker", 0, 1),
            (OUTSIDE, 8080, "", 0, 0),
        ] {
            let packet = Packet {
                time: Duration::ZERO,
                source,
                destination: INSIDE[1],
                transport: Transport::Tcp {
                    source: 40_000,
                    destination: port,
                    flags: 16,
                },
                payload: payload.into(),
            };
            let mut seen = Seen::default();
            seen.add(&packet, &Finder::new("marker"), &[OUTSIDE]);
            let found = (seen.violations, seen.marked_outside);
            assert_eq!(found, (violations, marked_outside), "{packet} {payload}");
        }
    }
}
