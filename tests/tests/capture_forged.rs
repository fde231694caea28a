//! A pod can't speak in another's name.

use std::{net::SocketAddr, time::Duration};

use lab::{Lab, Mesh, Pod, PodSpec, Result, eventually, on_each_network};

const DEADLINE: Duration = Duration::from_secs(30);
const COUNT: u32 = 3;

/// Sends SYNs from `forger` in the name of `source`, and makes sure that node a drops each, and
/// that `destination` gets none.
fn assert_dropped(lab: &Lab, forger: &Pod, source: SocketAddr, destination: &Pod) -> Result<()> {
    let node = lab.node("a");
    let dropped = || node.packets("dropped_forged_source");
    let before = dropped()?;
    let capture = destination.capture("eth0", "tcp")?;
    let (from, to) = (source.to_string(), destination.at(8080).to_string());
    let count = COUNT.to_string();
    forger
        .peer(["forge-syn", "--source", &from, "--destination", &to, "--count", &count])?;
    let what = format!("{from} to {to} by {} dropped {COUNT} times", forger.name());
    eventually(&what, DEADLINE, || {
        dropped().is_ok_and(|dropped| dropped - before == f64::from(COUNT))
    });
    let seen = capture.stop()?;
    assert!(seen.iter().all(|packet| packet.source != source.ip()), "{from} to {to}: {seen:?}");
    Ok(())
}

#[test]
fn a_forged_source_is_dropped_where_it_is_sent() -> Result<()> {
    on_each_network("forged", |lab| {
        lab.namespace("shop").enrolled()?;
        lab.namespace("street").not_enrolled()?;
        let inside = || PodSpec::in_namespace("shop");
        let outside = || PodSpec::in_namespace("street");
        let forger = lab.node("a").pod("forger", inside())?;
        let outsider = lab.node("a").pod("outsider", outside())?;
        let near = lab.node("a").pod("near", inside())?;
        let far = lab.node("b").pod("far", inside())?;
        let passer = lab.node("b").pod("passer", outside())?;
        let _mesh = Mesh::default().start(lab)?;

        let beyond = if near.address().is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        let beyond = SocketAddr::new(beyond.parse().expect("an address"), 4444);
        let node = SocketAddr::new(lab.node("a").address(), 4444);
        let names = [near.at(4444), far.at(4444), passer.at(4444), node, beyond];
        for source in names {
            for destination in [&near, &far, &passer] {
                if source.ip() != destination.address() {
                    assert_dropped(lab, &forger, source, destination)?;
                }
            }
        }
        // Who is outside may not speak for those inside.
        assert_dropped(lab, &outsider, near.at(4444), &far)?;
        assert_dropped(lab, &outsider, near.at(4444), &passer)?;
        assert_dropped(lab, &outsider, far.at(4444), &near)
    })
}
