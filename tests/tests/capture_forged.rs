//! A pod can't speak in another's name.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lab::{Lab, Mesh, Pod, PodSpec, Result, Way, eventually, on_each_network};

const DEADLINE: Duration = Duration::from_secs(30);
const COUNT: u32 = 3;
/// The port that every forged packet claims to come from, and no other packet has.
const PORT: u16 = 4444;

/// Sends SYNs from `forger` in the name of `source`, and makes sure that node a drops each.
fn assert_dropped(lab: &Lab, forger: &Pod, source: IpAddr, destination: &Pod) -> Result<()> {
    let node = lab.node("a");
    let dropped = || node.packets("dropped_forged_source");
    let before = dropped()?;
    let from = SocketAddr::new(source, PORT).to_string();
    let (to, count) = (destination.at(8080).to_string(), COUNT.to_string());
    forger.peer([
        "forge-syn",
        "--source",
        &from,
        "--destination",
        &to,
        "--count",
        &count,
    ])?;
    let what = format!("{from} to {to} by {} dropped {COUNT} times", forger.name());
    eventually(&what, DEADLINE, || {
        dropped().is_ok_and(|dropped| dropped - before == f64::from(COUNT))
    });
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
        let destinations = [&near, &far, &passer];
        let mut captures = Vec::new();
        for pod in destinations {
            captures.push(pod.capture("eth0", "tcp")?);
        }

        let beyond = if near.address().is_ipv4() {
            "192.0.2.1"
        } else {
            "2001:db8::1"
        };
        let names = [
            near.address(),
            far.address(),
            passer.address(),
            lab.node("a").address(),
            beyond.parse().expect("an address"),
        ];
        for source in names {
            for destination in destinations {
                if source != destination.address() {
                    assert_dropped(lab, &forger, source, destination)?;
                }
            }
        }
        // Who is outside may not speak for those inside.
        assert_dropped(lab, &outsider, near.address(), &far)?;
        assert_dropped(lab, &outsider, near.address(), &passer)?;
        assert_dropped(lab, &outsider, far.address(), &near)?;

        // An honest connection is seen, so a forged one would be.
        let mut echo = far.echo(8080)?;
        assert_eq!(forger.talk(&mut echo, far.at(8080))?, Way::Carried);
        for (pod, capture) in destinations.iter().zip(captures) {
            let seen = capture.stop()?;
            assert!(
                seen.iter().all(|packet| !packet.has_port(PORT)),
                "{}: {seen:?}",
                pod.name()
            );
            assert_eq!(seen.is_empty(), pod.name() != "far", "{}", pod.name());
        }
        Ok(())
    })
}
