//! Connections that end without having been used.

use std::fs;

use lab::{Lab, Result, eventually};

use crate::{
    lifecycle::started,
    shop::DEADLINE,
    stage::{Of, Stage, check},
};

#[test]
fn a_client_that_ends_before_it_speaks_is_ended_and_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::builder("l7-silent").build()?;
    let stage = Stage::open(&lab)?;
    let [mut one, _two] = stage.serve("echo-server", 8083, &[])?;
    let mut mesh = stage.mesh(&lab, &[])?;
    let pid = started(&mut mesh, "b");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut before = None;
    // At once, and when it was found that the server says nothing either.
    for pause in ["--pause-ms=0", "--pause-ms=700"] {
        for _ in 0..8 {
            let arguments = ["--send=", "--end", pause];
            let told = stage.call((Of::One, 83), &stage.friend, "raw-client", &arguments)?;
            check(
                pause,
                &told,
                &[("/end", "eof".into()), ("/received", "".into())],
            );
        }
        let before = *before.get_or_insert_with(descriptors);
        // Tunnels are kept for the next connection.
        eventually("connections to be closed", DEADLINE, || {
            descriptors() <= before + 2
        });
    }
    for report in one.await_reports(1, DEADLINE)? {
        check(
            "the server",
            &report,
            &[("/received_bytes", 0.into()), ("/end", "eof".into())],
        );
    }
    Ok(())
}
