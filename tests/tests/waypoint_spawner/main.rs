//! What control makes of Gateways and of namespaces' labels, by the rights that the manifests give it.

mod cluster;
mod routes;

use lab::{Lab, Result, deploy::refusals, eventually};
use serde_json::{Value, json};

use self::cluster::{CONTROL, Cluster, DEADLINE, IMAGE, MADE, gateway, namespace, text, told};

const SERVES: &str = "Accepted=True/Accepted Programmed=True/Programmed";
const WAITS: &str = "Accepted=True/Accepted Programmed=False/Pending";

#[test]
fn a_gateway_becomes_a_waypoint_and_goes_with_all_that_was_made() -> Result<()> {
    let lab = Lab::builder("spawn").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    cluster.api.apply(gateway("w"))?;
    cluster.await_conditions("w", WAITS);
    let mut made: Vec<Value> = MADE
        .iter()
        .filter_map(|(kind, end)| cluster.object(kind, &format!("w{end}")))
        .collect();
    assert_eq!(made.len(), MADE.len());
    for object in &mut made {
        // The server's own record, with keys that are too long for YAML.
        object["metadata"]["managedFields"] = json!([]);
    }
    for version in ["1.25", "1.37"] {
        assert_eq!(refusals(&made, version)?, Vec::<String>::new());
    }
    let pod = |at: &str| {
        let deployment = cluster.object("Deployment", "w").unwrap_or_default();
        deployment["spec"]["template"].pointer(at).cloned()
    };
    assert_eq!(pod("/spec/containers/0/image"), Some(json!(IMAGE)));
    let roots = cluster
        .api
        .object("ConfigMap", "ambit-system", "ambit-trust-bundle")
        .unwrap_or_default();
    assert_eq!(made[0]["data"], roots["data"]);
    eventually("the waypoint to have rights", DEADLINE, || {
        cluster.subjects() == ["shop/w"]
    });
    eventually("the class to be accepted", DEADLINE, || {
        let class = cluster.api.object("GatewayClass", "", "ambit-waypoint");
        told(&class.unwrap_or_default()["status"]["conditions"]) == "Accepted=True/Accepted"
    });

    cluster.make_ready("w")?;
    cluster.await_conditions("w", SERVES);
    let status = cluster.object("Gateway", "w").unwrap_or_default()["status"].clone();
    let service = cluster.object("Service", "w").unwrap_or_default();
    let expected = json!([
        { "type": "IPAddress", "value": service["spec"]["clusterIP"] },
        { "type": "Hostname", "value": "w.shop.svc" },
    ]);
    assert_eq!(status["addresses"], expected);
    assert_eq!(status["listeners"][0]["attachedRoutes"], 0);

    // What somebody changes of ours is changed back, but for what isn't ours.
    cluster.change("Deployment", "w", |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
        deployment["spec"]["replicas"] = json!(5);
        deployment["metadata"]["annotations"] = json!({ "of-another": "1" });
    })?;
    let image = || pod("/spec/containers/0/image");
    eventually("the image to be ours again", DEADLINE, || {
        image() == Some(json!(IMAGE))
    });
    let deployment = cluster.object("Deployment", "w").unwrap_or_default();
    assert_eq!(deployment["spec"]["replicas"], 5);
    assert_eq!(deployment["metadata"]["annotations"]["of-another"], "1");
    cluster.api.delete("Service", "shop", "w")?;
    cluster.await_waypoint("w");

    // An edit is followed, both ways.
    let annotated = |labels: Value, replicas: Option<&str>| {
        let mut gateway = cluster.object("Gateway", "w").unwrap_or_default();
        gateway["spec"]["infrastructure"] = json!({ "labels": labels });
        gateway["metadata"]["annotations"] = json!({ "ambit.dev/replicas": replicas });
        cluster.api.apply(gateway)
    };
    let team = || pod("/metadata/labels/team");
    annotated(json!({ "team": "till" }), Some("3"))?;
    eventually("a label and a number", DEADLINE, || {
        let deployment = cluster.object("Deployment", "w").unwrap_or_default();
        team() == Some(json!("till")) && deployment["spec"]["replicas"] == 3
    });
    annotated(json!({}), None)?;
    eventually("the label to go", DEADLINE, || team().is_none());
    let deployment = cluster.object("Deployment", "w").unwrap_or_default();
    assert_eq!(deployment["spec"]["replicas"], 3);

    cluster.api.delete("Gateway", "shop", "w")?;
    cluster.await_removal("w");
    eventually("no account to have rights", DEADLINE, || {
        cluster.subjects().is_empty()
    });
    let refused = |seen: &lab::RequestSeen| seen.user == CONTROL && seen.status == 403;
    let refused: Vec<_> = cluster.api.requests().into_iter().filter(refused).collect();
    assert_eq!(refused, []);
    Ok(())
}

#[test]
fn a_bad_gateway_is_told_why_and_keeps_what_it_had() -> Result<()> {
    let lab = Lab::builder("bad").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    let mut bad = gateway("bad");
    bad["spec"]["listeners"][0]["protocol"] = json!("HTTP");
    cluster.api.apply(bad)?;
    let refused = "Accepted=False/ListenersNotValid Programmed=False/Invalid";
    cluster.await_conditions("bad", refused);
    let listener = || {
        let gateway = cluster.object("Gateway", "bad").unwrap_or_default();
        told(&gateway["status"]["listeners"][0]["conditions"])
    };
    assert!(listener().contains("Accepted=False/UnsupportedProtocol"));
    assert_eq!(cluster.object("Deployment", "bad"), None);

    // Somebody else's Service is in the way.
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "shop", "name": "taken" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    cluster.api.apply(foreign.clone())?;
    cluster.api.apply(gateway("taken"))?;
    cluster.await_conditions("taken", "Accepted=True/Accepted Programmed=False/Invalid");
    let status = cluster.object("Gateway", "taken").unwrap_or_default()["status"].clone();
    let message = text(&status["conditions"][1]["message"]).to_owned();
    assert!(message.contains("Service shop/taken") && message.contains("remove or rename"));
    let service = cluster.object("Service", "taken").unwrap_or_default();
    assert_eq!(service["spec"], foreign["spec"]);
    assert_eq!(cluster.object("Deployment", "taken"), None);

    // Others don't mind, and one that was good goes on when it's broken.
    cluster.api.apply(gateway("good"))?;
    cluster.await_waypoint("good");
    cluster.make_ready("good")?;
    cluster.await_conditions("good", SERVES);
    cluster.change("Gateway", "good", |gateway| {
        gateway["spec"]["addresses"] = json!([{ "value": "10.0.0.9" }]);
    })?;
    let refused = "Accepted=False/UnsupportedAddress Programmed=False/Invalid";
    cluster.await_conditions("good", refused);
    assert!(cluster.object("Deployment", "good").is_some());
    let roots = json!({ "trust-bundle.pem": "of before" });
    cluster.change("ConfigMap", "good-trust-bundle", |map| {
        map["data"] = roots.clone();
    })?;
    eventually("its roots to be those of now", DEADLINE, || {
        let map = cluster.object("ConfigMap", "good-trust-bundle");
        map.is_some_and(|map| map["data"] != roots)
    });
    assert_eq!(cluster.subjects(), ["shop/good"]);

    cluster.api.delete("Service", "shop", "taken")?;
    cluster.await_waypoint("taken");
    Ok(())
}

#[test]
fn a_namespaces_label_alone_is_enough_and_takes_away_only_what_it_made() -> Result<()> {
    let lab = Lab::builder("alone").nodes(&["a"]).build()?;
    let cluster = Cluster::running(&lab)?;
    let label = |labels: Value| cluster.api.apply(namespace("shop", &labels));
    cluster.api.apply(gateway("own"))?;
    label(json!({ "ambit.dev/use-waypoint": "w" }))?;
    cluster.await_waypoint("w");
    let labels = cluster.object("Gateway", "w").unwrap_or_default()["metadata"]["labels"].clone();
    assert_eq!(labels["app.kubernetes.io/managed-by"], "ambit");
    // Who removes it has it again.
    let uid = |name: &str| {
        let gateway = cluster.object("Gateway", name)?;
        gateway["metadata"]["uid"].as_str().map(str::to_owned)
    };
    let first = uid("w");
    cluster.api.delete("Gateway", "shop", "w")?;
    eventually("another Gateway", DEADLINE, || {
        uid("w").is_some_and(|uid| Some(uid) != first)
    });
    cluster.await_waypoint("w");

    label(json!({ "istio.io/use-waypoint": "other" }))?;
    cluster.await_waypoint("other");
    cluster.await_removal("w");
    assert_eq!(cluster.object("Gateway", "w"), None);
    for elsewhere in [
        json!({ "istio.io/use-waypoint": "x", "istio.io/use-waypoint-namespace": "street" }),
        json!({ "ambit.dev/use-waypoint": "none" }),
        json!({ "ambit.dev/use-waypoint": "own" }),
    ] {
        label(json!({ "ambit.dev/use-waypoint": "mark" }))?;
        cluster.await_waypoint("mark");
        label(elsewhere)?;
        cluster.await_removal("mark");
        assert!(cluster.object("Gateway", "own").is_some());
    }
    label(json!({}))?;
    label(json!({ "ambit.dev/use-waypoint": "last" }))?;
    cluster.await_waypoint("last");
    let names: Vec<String> = cluster
        .api
        .objects("Gateway")
        .iter()
        .map(|gateway| text(&gateway["metadata"]["name"]).to_owned())
        .collect();
    assert_eq!(names, ["last", "own"]);
    Ok(())
}

#[test]
fn waypoints_are_made_once_their_kinds_are_there_and_by_whichever_control_runs() -> Result<()> {
    let lab = Lab::builder("restart").nodes(&["a"]).build()?;
    let mut cluster = Cluster::new(&lab)?;
    for kind in ["Gateway", "GatewayClass"] {
        cluster.api.hide(kind);
    }
    cluster.start()?;
    let mut control = cluster.control.take().expect("it was started");
    control.await_stderr(DEADLINE, |line| line.contains("no waypoints yet"))?;
    for kind in ["Gateway", "GatewayClass"] {
        cluster.api.show(kind);
    }
    cluster.api.apply(gateway("w"))?;
    cluster.await_waypoint("w");
    cluster.await_conditions("w", WAITS);
    assert_eq!(control.stderr().matches("no waypoints yet").count(), 1);
    control.stop()?;

    // While nobody is there to see it.
    cluster.api.apply(gateway("second"))?;
    cluster.make_ready("w")?;
    cluster.api.apply(namespace(
        "shop",
        &json!({ "ambit.dev/use-waypoint": "third" }),
    ))?;
    let deployment = cluster.object("Deployment", "w");
    cluster.start()?;
    cluster.await_conditions("w", SERVES);
    cluster.await_waypoint("second");
    cluster.await_waypoint("third");
    let generation = |deployment: Option<Value>| {
        let deployment = deployment.unwrap_or_default();
        deployment["metadata"]["generation"].clone()
    };
    assert_eq!(
        generation(cluster.object("Deployment", "w")),
        generation(deployment)
    );
    eventually("their rights", DEADLINE, || {
        cluster.subjects() == ["shop/second", "shop/third", "shop/w"]
    });
    Ok(())
}
