//! Clocks that are set by an hour, of one node and of all.

use std::{fs, path::Path};

use lab::{Lab, Mesh, Result, eventually};

use crate::shop::{DEADLINE, pod, wrapped};

/// Where Debian's `faketime` has the library that shows processes another time.
const LIBRARIES: &str = "/usr/lib/*/faketime/libfaketime.so.1";
/// Clocks: an agent's by its node, and control's.
const CLOCKS: [&str; 3] = ["a", "b", "control"];

/// Shows the processes that go by a clock another time from now on, as libfaketime writes it: `+3600`.
fn set(clocks: &Path, clock: &str, offset: &str) {
    // Renamed into place: half of an offset would be another.
    let (file, new) = (clocks.join(clock), clocks.join("new"));
    fs::write(&new, format!("{offset}\n")).unwrap();
    fs::rename(new, file).unwrap();
}

fn script(clocks: &Path) -> String {
    format!(
        "case $1 in node) clock=$3;; control) clock=control;; *) exec ambit \"$@\";; esac\n\
         for library in {LIBRARIES}; do export LD_PRELOAD=$library; done\n\
         [ -e \"$LD_PRELOAD\" ] || {{ echo \"no $LD_PRELOAD: run cargo xtask setup\" >&2; exit 1; }}\n\
         export FAKETIME_TIMESTAMP_FILE={}/$clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         exec ambit \"$@\"",
        clocks.display()
    )
}

#[test]
fn clocks_that_are_set_by_an_hour_keep_nobody_from_anybody() -> Result<()> {
    let lab = Lab::builder("clock").build()?;
    lab.namespace("shop").enrolled()?;
    let (here, there) = (pod(&lab, "a", "here")?, pod(&lab, "b", "there")?);
    let _served = [here.echo(80)?, there.echo(80)?];
    let clocks = lab.directory().join("clocks");
    fs::create_dir(&clocks).unwrap();
    let set_all = |offset: &str| CLOCKS.iter().for_each(|clock| set(&clocks, clock, offset));
    set_all("+0");
    // Shorter than the step: the worst that an hour can do.
    let mut mesh = Mesh::default()
        .program(&wrapped(&lab, &script(&clocks))?)
        .certificate_ttl("10m")
        .start(&lab)?;
    let mut open = here.hold(there.at(80))?;
    open.echo().unwrap();
    let both_ways = |what: &str, is_at_once: bool| -> Result<()> {
        for (client, server) in [(&here, &there), (&there, &here)] {
            let served = || {
                client
                    .call(server.at(80))
                    .is_ok_and(|told| told == "echoed")
            };
            match is_at_once {
                true => assert!(served(), "{what}: from {}", client.name()),
                false => eventually(what, DEADLINE, served),
            }
        }
        Ok(())
    };
    both_ways("before", true)?;
    let issued = serial(&lab, "here");

    // One node an hour behind: what others have was issued in its future, and is believed.
    set(&clocks, "a", "-3600");
    let late = pod(&lab, "b", "late")?;
    for (client, server) in [(&here, &there), (&there, &here), (&late, &here)] {
        let told = client.call(server.at(80))?;
        assert_eq!(told, "echoed", "behind: from {}", client.name());
    }
    set(&clocks, "a", "+0");

    // All an hour ahead: every certificate has expired, and is renewed when somebody shows it.
    set_all("+3600");
    both_ways("ahead", false)?;
    let later = pod(&lab, "b", "later")?;
    eventually("a new tunnel", DEADLINE, || {
        later.call(here.at(80)).is_ok_and(|told| told == "echoed")
    });
    assert_ne!(serial(&lab, "here"), issued);

    // All an hour back.
    set_all("+0");
    both_ways("back", true)?;
    let latest = pod(&lab, "b", "latest")?;
    for client in [&late, &later, &latest] {
        assert_eq!(client.call(here.at(80))?, "echoed", "{}", client.name());
    }
    open.echo().unwrap();
    for node in lab.nodes() {
        let failures = node.metric("ambit_certificate_renewal_failures_total", &[])?;
        assert!(failures < 20.0, "it spins: {failures} failures");
        assert!(mesh.agent(node.name()).is_running());
    }
    Ok(())
}

/// Of the certificate of an account of node a.
fn serial(lab: &Lab, account: &str) -> String {
    let told = lab.node("a").admin("/certificates").unwrap();
    let mut all = told.as_array().unwrap().iter();
    let of = |it: &&serde_json::Value| {
        let identity = it["identity"].as_str().unwrap_or_default();
        identity.ends_with(&format!("/sa/{account}"))
    };
    all.find(of).unwrap()["serial"].as_str().unwrap().to_owned()
}
