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
        Ok(Capture {
            tcpdump,
            file,
            reports: 0,
        })
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
    /// would make it throw the rest away. It tells both counts when it gets SIGUSR1.
    fn drain(&mut self) -> Result<()> {
        let reports = |lines: &[&str]| -> Vec<String> {
            let all = lines
                .iter()
                .filter(|line| line.contains("received by filter"));
            all.map(|line| (*line).into()).collect()
        };
        let stderr = self.tcpdump.stderr_path().to_owned();
        let lost = wait::poll("tcpdump writing all packets", DEADLINE, || {
            self.tcpdump
                .signal(libc::SIGUSR1)
                .map_err(|error| error.to_string())?;
            let seen = self.reports;
            let newer = |lines: &[&str]| reports(lines).get(seen).cloned();
            let report = self.tcpdump.await_lines(&stderr, DEADLINE, newer);
            let report = report.map_err(|error| error.to_string())?;
            self.reports += 1;
            let numbers: Vec<u64> = report
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            match numbers.as_slice() {
                [captured, received, 0, ..] if captured < received => Err(report),
                [_, _, lost, ..] => Ok(*lost),
                _ => Err(report),
            }
        })?;
        match lost {
            0 => Ok(()),
            lost => Err(Error::Malformed {
                what: "a capture".into(),
                cause: format!("{lost} packets were lost; a filter would spare tcpdump some"),
            }),
        }
    }
}

fn read(file: &Path) -> Result<Vec<Packet>> {
    parse_pcap(&std::fs::read(file).map_err(Error::path("read", file))?)
}
