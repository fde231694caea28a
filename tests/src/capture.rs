//! Packets as tcpdump saw them.

mod pcap;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use pcap::parse_frame;
pub use pcap::{Packet, Transport, parse_pcap};

use crate::{Child, Error, Place, Result, wait};

/// How long tcpdump may take to listen, or to write what it has captured.
const DEADLINE: Duration = Duration::from_secs(10);

/// The kernel's buffer for tcpdump, in KiB: with segmentation offload, about 500 packets.
const BUFFER: &str = "32768";

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
    /// How many of tcpdump's reports have been read.
    reports: usize,
    /// Packets that came before the kernel had the filter, which it counts and tcpdump passes over.
    unfiltered: u64,
}

/// What tcpdump reports.
struct Counts {
    captured: u64,
    received: u64,
    lost: u64,
}

impl Counts {
    /// `<n> packets captured, <n> packets received by filter, <n> packets dropped by kernel`.
    fn parse(report: &str) -> Option<Self> {
        let mut numbers = report.split(' ').filter_map(|word| word.parse().ok());
        Some(Self {
            captured: numbers.next()?,
            received: numbers.next()?,
            lost: numbers.next()?,
        })
    }

    fn unwritten(&self) -> u64 {
        self.received.saturating_sub(self.captured)
    }
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
                "-B",
                BUFFER,
                "-i",
                interface,
                "-w",
            ])
            .arg(&file)
            .arg(filter);
        let mut tcpdump = command.spawn()?;
        tcpdump.await_stderr(DEADLINE, |line| line.contains("listening on"))?;
        let mut capture = Capture {
            tcpdump,
            file,
            reports: 0,
            unfiltered: 0,
        };
        // What is only about to be written in the first is written by the second.
        let first = capture.report()?.unwritten();
        capture.unfiltered = first.min(capture.report()?.unwritten());
        Ok(capture)
    }

    /// The file that is written.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Stops, and returns every IP packet that had come to the interface, in order.
    ///
    /// # Errors
    /// If packets were lost, or tcpdump's file can't be read.
    pub fn stop(mut self) -> Result<Vec<Packet>> {
        self.drain()?;
        self.tcpdump.stop()?.success()?;
        read(&self.file)
    }

    /// Returns every IP packet that has come to the interface until now, and goes on.
    ///
    /// # Errors
    /// If packets were lost, or tcpdump's file can't be read.
    pub fn packets(&mut self) -> Result<Vec<Packet>> {
        self.drain()?;
        read(&self.file)
    }

    /// Waits until tcpdump has written all that the kernel has kept for it: a signal to stop
    /// would make it throw the rest away.
    fn drain(&mut self) -> Result<()> {
        let lost = wait::poll("tcpdump writing all packets", DEADLINE, || {
            let counts = self.report().map_err(|error| error.to_string())?;
            self.unfiltered = self.unfiltered.min(counts.unwritten());
            let waiting = counts.unwritten() - self.unfiltered;
            if waiting > 0 && counts.lost == 0 {
                return Err(format!("{waiting} packets wait"));
            }
            Ok(counts.lost)
        })?;
        match lost {
            0 => Ok(()),
            lost => Err(Error::Malformed {
                what: "a capture".into(),
                cause: format!("{lost} packets were lost; a filter would spare tcpdump some"),
            }),
        }
    }

    /// What tcpdump has counted until now: it tells when it gets SIGUSR1.
    fn report(&mut self) -> Result<Counts> {
        self.tcpdump.signal(libc::SIGUSR1)?;
        let seen = self.reports;
        let stderr = self.tcpdump.stderr_path().to_owned();
        let counts = self.tcpdump.await_lines(&stderr, DEADLINE, |lines| {
            let mut reports = lines
                .iter()
                .filter(|line| line.contains("received by filter"));
            Counts::parse(reports.nth(seen)?)
        })?;
        self.reports += 1;
        Ok(counts)
    }
}

fn read(file: &Path) -> Result<Vec<Packet>> {
    parse_pcap(&std::fs::read(file).map_err(Error::path("read", file))?)
}
