//! An authority that is away for longer than certificates live.

use std::time::{SystemTime, UNIX_EPOCH};

use lab::{Lab, Mesh, Result, eventually};

use crate::shop::{DEADLINE, pod};

#[test]
fn without_the_authority_what_is_open_outlives_certificates_and_what_is_new_does_not() -> Result<()>
{
    let lab = Lab::builder("noca").build()?;
    lab.namespace("shop").enrolled()?;
    let (client, far) = (pod(&lab, "a", "client")?, pod(&lab, "b", "far")?);
    let _served = far.echo(80)?;
    let mut mesh = Mesh::default().certificate_ttl("6s").start(&lab)?;
    let node = lab.node("a");
    let expiry = || {
        let all = node.metric("ambit_certificate_expiry_timestamp_seconds", &[]);
        all.unwrap()
    };
    let failures = || {
        let all = node.metric("ambit_certificate_renewal_failures_total", &[]);
        all.unwrap()
    };
    assert_eq!(client.call(far.at(80))?, "echoed");
    let mut open = client.hold(far.at(80))?;
    open.echo().unwrap();

    mesh.kill_control();
    eventually("a renewal to fail", DEADLINE, || failures() > 0.0);
    if !has_passed(expiry()) {
        assert_eq!(client.call(far.at(80))?, "echoed", "its life isn't over");
    }
    eventually("the certificate to expire", DEADLINE, || {
        has_passed(expiry())
    });
    // A tunnel that is there already proves no more than the certificates that it was opened with.
    eventually("new connections to be refused", DEADLINE, || {
        open.echo().unwrap();
        client.call(far.at(80)).is_ok_and(|told| told == "reset")
    });
    let told = mesh.await_access("a", &["connection failed", "no valid certificate for"])?;
    assert!(
        told.contains("the certificate authority is unreachable"),
        "{told}"
    );
    open.echo().unwrap();

    mesh.start_control()?;
    eventually("new connections to be carried", DEADLINE, || {
        client.call(far.at(80)).is_ok_and(|told| told == "echoed")
    });
    assert!(!has_passed(expiry()));
    open.echo().unwrap();
    Ok(())
}

fn has_passed(seconds: f64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    seconds <= now.as_secs_f64()
}
