//! Bodies of any length, through a waypoint: every byte, as slowly as they are read, and none of them held.

use std::fs;

use lab::{Lab, Result};

use crate::stage::{Of, Stage};

#[test]
fn large_bodies_pass_both_ways_byte_for_byte_however_slowly_they_are_read() -> Result<()> {
    const LENGTH: usize = 20 << 20;
    let lab = Lab::builder("l7-large").build()?;
    let stage = Stage::open(&lab)?;
    let _mesh = stage.mesh(&lab, &[])?;
    let bytes: Vec<u8> = (0..LENGTH as u64 / 8)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .collect();
    let sent = lab.directory().join("sent");
    fs::write(&sent, &bytes).unwrap();
    let url = format!("http://{}/?echo", stage.at(Of::Both, 80));
    for (name, more) in [
        ("http1", &["--http1.1"][..]),
        ("http2", &["--http2-prior-knowledge"]),
        (
            "chunked",
            &["--http1.1", "-H", "transfer-encoding: chunked"],
        ),
        ("slow", &["--http1.1", "--limit-rate", "8M"]),
        (
            "slow-http2",
            &["--http2-prior-knowledge", "--limit-rate", "8M"],
        ),
    ] {
        let received = lab.directory().join(name);
        let command = stage
            .friend
            .command("curl")
            .args(["-sS", "-f", "-H", "expect:"]);
        let command = command
            .arg("--data-binary")
            .arg(format!("@{}", sent.display()));
        command
            .args(more)
            .arg("-o")
            .arg(&received)
            .arg(&url)
            .run()?
            .success()?;
        let received = fs::read(&received).unwrap();
        assert_eq!(received.len(), LENGTH, "{name}");
        assert!(received == bytes, "{name}: other bytes");
    }
    Ok(())
}

#[test]
fn a_body_that_nobody_reads_is_not_held_by_the_waypoint() -> Result<()> {
    let lab = Lab::builder("l7-held").build()?;
    let stage = Stage::open(&lab)?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let pid = crate::lifecycle::started(&mut mesh, "b");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let before = peak(&pid);
        let url = format!("http://{}/?body=80000000", stage.at(Of::Both, 80));
        let curl =
            stage
                .friend
                .command("curl")
                .args([version, "-sS", "-o", "/dev/null", "-m", "4"]);
        let told = curl
            .args(["--limit-rate", "1M", "-w", "%{size_download}", &url])
            .run()?;
        assert!(
            told.text().contains("28") || !told.succeeded(),
            "it is cut off: {told:?}"
        );
        let grown = peak(&pid) - before;
        assert!(grown < 32 << 10, "{version}: {grown} KiB more");
    }
    Ok(())
}

/// The most memory that a process has had at once, in KiB.
fn peak(pid: &str) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
