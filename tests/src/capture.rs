//! Packets as tcpdump saw them.

mod pcap;

use std::{path::PathBuf, time::Duration};

pub use pcap::{LinkType, Packet, Transport, parse_pcap};

use crate::{Child, Error, Place, Result, wait};

/// How long tcpdump may take to listen, or to write what it has captured.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Starts tcpdump and waits until it listens: packets sent after this are captured.
    pub(crate) fn start(place: &Place, interface: &str, filter: &str) -> Result<Capture> {
        let number = place
            .shared
            .sequence
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = place
            .shared
            .directory
            .join(format!("capture-{number}.pcap"));
        let command = place
            .command("tcpdump")
            // Packets are to arrive one by one, in the file too, and tcpdump is to stay root,
            // whose directory this is.
            .args([
                "--immediate-mode",
                "-U",
                "-Z",
                "root",
                "-n",
                "-s",
                "0",
                "-i",
                interface,
                "-w",
            ])
            .arg(&file)
            .arg(filter);
        let mut tcpdump = command.spawn()?;
        tcpdump.await_stderr(DEADLINE, |line| line.contains("listening on"))?;
        Ok(Capture { tcpdump, file })
    }

    /// The file that is written.
    #[must_use]
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// Stops, and returns every IP packet that had come to the interface, in order.
    ///
    /// # Errors
    /// If packets were lost, or tcpdump's file can't be read.
    pub fn stop(mut self) -> Result<Vec<Packet>> {
        self.drain()?;
        self.tcpdump.stop()?.success()?;
        let bytes = std::fs::read(&self.file).map_err(Error::path("read", &self.file))?;
        parse_pcap(&bytes)
    }

    /// Waits until tcpdump has written all that the kernel has kept for it: a signal to stop
    /// would make it throw the rest away. It tells both counts when it gets SIGUSR1.
    fn drain(&mut self) -> Result<()> {
        let reports = |lines: &[&str]| -> Vec<String> {
            let all = lines
                .iter()
                .filter(|line| line.contains("received by filter"));
            all.map(|line| (*line).into()).collect()
        };
        let stderr = self.tcpdump.stderr_path().to_owned();
        let mut seen = 0;
        wait::poll("tcpdump writing all packets", DEADLINE, || {
            self.tcpdump
                .signal(libc::SIGUSR1)
                .map_err(|error| error.to_string())?;
            let newer = |lines: &[&str]| reports(lines).get(seen).cloned();
            let report = self.tcpdump.await_lines(&stderr, DEADLINE, newer);
            let report = report.map_err(|error| error.to_string())?;
            seen += 1;
            let numbers: Vec<u64> = report
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            match numbers.as_slice() {
                [captured, received, 0, ..] if captured == received => Ok(()),
                _ => Err(report),
            }
        })
    }
}
