//! A waypoint in a cluster: control makes it of its Gateway, and by the rights that the manifests give.

mod here;
mod rollout;

use std::sync::Arc;

use lab::{ApiServer, Kubelet, Lab, Mesh, Result, Way, WaypointPod, deploy::installed, eventually};
use serde_json::Value;

use crate::{
    policy::{ALLOW, DENY},
    shop::{DEADLINE, Shop, count_opened, gateway, use_waypoint},
};

/// The Gateway's condition `Programmed`.
fn programmed(api: &ApiServer) -> Option<Value> {
    let gateway = api.object("Gateway", "shop", "w")?;
    let conditions = gateway["status"]["conditions"].as_array()?;
    let mut conditions = conditions.iter();
    let condition = conditions.find(|it| it["type"] == "Programmed")?;
    Some(condition["status"].clone())
}

/// Connections of the stranger that it has refused, by its access log.
fn denied(waypoint: &WaypointPod) -> usize {
    let log = waypoint.process.stderr();
    let told = [
        "connection denied",
        "direction=\"through\"",
        "src.identity=spiffe://cluster.local/ns/shop/sa/stranger",
    ];
    let is_told = |line: &&str| told.iter().all(|part| line.contains(part));
    log.lines().filter(is_told).count()
}

fn through(shop: &mut Shop) -> bool {
    matches!(shop.ways(), Ok([Way::Replaced(_), Way::Replaced(_)]))
}

#[test]
fn a_gateway_of_a_cluster_becomes_a_waypoint_that_traffic_goes_through_until_it_is_deleted()
-> Result<()> {
    let lab = Lab::builder("incluster").build()?;
    let mut shop = Shop::open(&lab)?;
    let api = Arc::new(installed(&lab)?);
    let _mesh = Mesh::default()
        .control_arguments(&["--waypoint-image", "registry.example/ambit:7"])
        .in_cluster(&lab, &api)?
        .start(&lab)?;
    assert!(matches!(
        shop.ways()?,
        [Way::Carried | Way::Direct, Way::Carried]
    ));
    lab.apply("gateway.yaml", &gateway("w", "b", "service"))?;
    use_waypoint(&lab, "w")?;
    let kubelet = Kubelet::new(&lab, &api, "shop");
    kubelet.await_made("w")?;
    eventually("the Gateway to say that it isn't ready", DEADLINE, || {
        programmed(&api) == Some("False".into())
    });
    let mut waypoint = kubelet.start(("w", 0), "b")?;
    kubelet.await_ready(&waypoint)?;
    eventually("the Gateway to be programmed", DEADLINE, || {
        programmed(&api) == Some("True".into())
    });
    let addresses = api.object("Gateway", "shop", "w").unwrap()["status"]["addresses"].clone();
    let service = api.object("Service", "shop", "w").unwrap();
    assert_eq!(addresses[0]["value"], service["spec"]["clusterIP"]);

    // What goes to either server goes through it, and its access log says whose it is.
    eventually("connections to go through it", DEADLINE, || {
        through(&mut shop)
    });
    let before = count_opened(&waypoint.metrics()?);
    let from_waypoint = Way::Replaced(waypoint.pod.address());
    assert_eq!(shop.ways()?, [from_waypoint.clone(), from_waypoint]);
    assert!((count_opened(&waypoint.metrics()?) - before - 2.0).abs() < 0.1);
    for service in ["near", "far"] {
        let host = format!("dst.service=\"{service}.shop.svc.cluster.local\"");
        waypoint.process.await_stderr(DEADLINE, |line| {
            line.contains("direction=\"through\"")
                && line.contains("src.identity=spiffe://cluster.local/ns/shop/sa/friend")
                && line.contains(&host)
        })?;
    }

    // It decides, by the client's identity.
    for policy in [DENY, ALLOW] {
        let told = denied(&waypoint);
        lab.apply("policy.yaml", policy)?;
        for vip in shop.vips() {
            eventually("the stranger to be refused", DEADLINE, || {
                shop.stranger.call(vip).is_ok_and(|told| told == "reset")
            });
            assert_eq!(shop.friend.call(vip)?, "echoed");
        }
        eventually("the waypoint to tell of it", DEADLINE, || {
            denied(&waypoint) > told
        });
        lab.remove("policy.yaml")?;
        eventually("the stranger to be admitted again", DEADLINE, || {
            shop.stranger
                .call(shop.vips()[1])
                .is_ok_and(|told| told == "echoed")
        });
    }

    lab.namespace("shop").enrolled()?;
    lab.remove("gateway.yaml")?;
    eventually("the Deployment to go", DEADLINE, || {
        api.object("Deployment", "shop", "w").is_none()
    });
    eventually("connections to go directly", DEADLINE, || {
        matches!(shop.ways(), Ok([Way::Carried | Way::Direct, Way::Carried]))
    });
    kubelet.stop(waypoint)?;
    assert_eq!(shop.friend.call(shop.vips()[1])?, "echoed");
    let requests = api.requests();
    let own = "system:serviceaccount:shop:w";
    assert!(requests.iter().any(|seen| seen.user == own));
    let refused: Vec<_> = requests.iter().filter(|seen| seen.status == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}
