//! What a cluster is told of its objects, and by which replica of control.

use std::{sync::Arc, time::Duration};

use lab::{ApiServer, Lab, Mesh, PodSpec, Rbac, Result, deploy::kustomize, eventually};
use serde_json::{Value, json};

/// Longer than a Lease is valid.
const DEADLINE: Duration = Duration::from_secs(60);

/// Kinds of routes of the Gateway API that are noticed.
const ROUTES: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

/// A server that grants what the manifests of an installation grant, and nothing else.
fn installed(lab: &Lab) -> Result<Arc<ApiServer>> {
    let api = ApiServer::start(lab)?;
    api.authorize(Rbac::new(&kustomize("deploy")?)?);
    Ok(Arc::new(api))
}

fn policy(port: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"rules": [{"to": [{"operation": {"ports": [port]}}]}]},
    })
}

/// For a Service, and for a Gateway that is somebody else's.
fn route(kind: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"namespace": "shop", "name": "canary"},
        "spec": {"parentRefs": [
            {"name": "edge"},
            {"group": "", "kind": "Service", "name": "web"},
        ]},
    })
}

/// The Events on an object.
fn told(api: &ApiServer, kind: &str, name: &str) -> Vec<Value> {
    let events = api.objects("Event").into_iter();
    let about =
        |event: &Value| event["regarding"]["kind"] == kind && event["regarding"]["name"] == name;
    events.filter(about).collect()
}

fn holder(api: &ApiServer) -> Option<String> {
    let lease = api.object("Lease", "ambit-system", "ambit-control")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

/// Our condition of a policy.
fn accepted(api: &ApiServer, kind: &str, name: &str) -> Option<Value> {
    let policy = api.object(kind, "shop", name)?;
    let conditions = policy["status"]["conditions"].as_array()?.clone();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == "ambit.dev/Accepted")
}

#[test]
fn an_object_that_cannot_be_used_says_why_and_no_longer_once_it_can() -> Result<()> {
    let lab = Lab::builder("told").build()?;
    lab.namespace("shop").enrolled()?;
    let api = installed(&lab)?;
    let _mesh = Mesh::default()
        .in_cluster(&lab, &api)?
        .control_arguments(&["--metrics-address", "127.0.0.1:15120"])
        .control_arguments(&["--ready-address", "127.0.0.1:15121"])
        .start(&lab)?;
    api.apply(policy("0"))?;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "other", "labels": {"ambit.dev/mesh": "yes"}},
    });
    api.apply(namespace)?;
    for kind in ROUTES {
        api.apply(route(kind))?;
    }
    let field = "spec.rules[0].to[0].operation.ports[0]";
    eventually("an Event on the policy", DEADLINE, || {
        told(&api, "AuthorizationPolicy", "web").len() == 1
    });
    let uid = api.object("AuthorizationPolicy", "shop", "web").unwrap()["metadata"]["uid"].clone();
    let event = &told(&api, "AuthorizationPolicy", "web")[0];
    assert_eq!(event["regarding"]["uid"], uid);
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "InvalidField");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("AuthorizationPolicy shop/web") && note.contains(field),
        "{note}"
    );
    let accepted = || accepted(&api, "AuthorizationPolicy", "web");
    let condition = accepted().expect("the policy has a condition");
    assert_eq!(condition["status"], "False");
    assert!(
        condition["message"].as_str().unwrap().contains(field),
        "{condition}"
    );
    eventually("an Event on a namespace", DEADLINE, || {
        let told = told(&api, "Namespace", "other");
        told.iter().any(|event| {
            let note = event["note"].as_str().unwrap();
            event["metadata"]["namespace"] == "default" && note.contains("ambit.dev/mesh")
        })
    });

    for kind in ROUTES {
        eventually(&format!("an Event on an {kind}"), DEADLINE, || {
            let told = told(&api, kind, "canary");
            told.iter().any(|event| {
                let note = event["note"].as_str().unwrap();
                event["reason"] == "NotApplied"
                    && note.contains("spec.parentRefs[1]: there is no Service shop/web")
            })
        });
    }

    for sample in [
        "ambit_control_leading 1",
        "ambit_manifest_problems 4",
        "ambit_control_events_total{result=\"published\"} 4",
        "ambit_control_events_total{result=\"failed\"} 0",
        "ambit_control_conditions_total{result=\"failed\"} 0",
    ] {
        eventually(sample, DEADLINE, || {
            let page = lab.node("a").fetch("http://127.0.0.1:15120/metrics");
            page.is_ok_and(|page| page.lines().any(|line| line == sample))
        });
    }
    let ready = lab
        .node("a")
        .fetch("http://127.0.0.1:15121/healthz/ready")?;
    assert_eq!(ready, "ready\n");

    let mut right = api.object("AuthorizationPolicy", "shop", "web").unwrap();
    right["spec"] = policy("8080")["spec"].clone();
    api.apply(right)?;
    eventually("the policy to say that it is in force", DEADLINE, || {
        accepted().is_some_and(|condition| condition["status"] == "True")
    });
    Ok(())
}

#[test]
fn policies_in_conflict_and_policies_of_nothing_say_so() -> Result<()> {
    let lab = Lab::builder("conflicts").build()?;
    lab.namespace("shop").enrolled()?;
    let api = installed(&lab)?;
    let _mesh = Mesh::default().in_cluster(&lab, &api)?.start(&lab)?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    api.apply(service)?;
    let policy = |name: &str, target: Value| {
        json!({
            "apiVersion": "ambit.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"targetRefs": [target], "rateLimit": {"requests": 1000, "per": "1s"}},
        })
    };
    let web = json!({"group": "", "kind": "Service", "name": "web"});
    api.apply(policy("first", web.clone()))?;
    // Where both are of one second, the first by name.
    api.apply(policy("second", web))?;
    let group = "gateway.networking.k8s.io";
    let missing = json!({"group": group, "kind": "HTTPRoute", "name": "canary"});
    api.apply(policy("lost", missing))?;
    for (name, reason, says) in [
        (
            "second",
            "Conflicted",
            "has an older policy already, shop/first",
        ),
        ("lost", "TargetNotFound", "there is no HTTPRoute canary"),
    ] {
        eventually(name, DEADLINE, || {
            accepted(&api, "TrafficPolicy", name).is_some_and(|condition| {
                condition["status"] == "False"
                    && condition["reason"] == reason
                    && condition["message"].as_str().unwrap().contains(says)
            })
        });
        eventually("its Event", DEADLINE, || {
            let told = told(&api, "TrafficPolicy", name);
            told.iter().any(|event| event["reason"] == reason)
        });
    }
    // It may have been read before its Service.
    eventually("the first to be in force", DEADLINE, || {
        accepted(&api, "TrafficPolicy", "first").is_none_or(|it| it["status"] == "True")
    });

    api.apply(route("HTTPRoute"))?;
    eventually("the route to be found", DEADLINE, || {
        accepted(&api, "TrafficPolicy", "lost").is_some_and(|it| it["status"] == "True")
    });
    Ok(())
}

#[test]
fn another_replica_leads_when_the_first_has_gone() -> Result<()> {
    let lab = Lab::builder("leads").build()?;
    lab.namespace("shop").enrolled()?;
    let api = installed(&lab)?;
    let mut mesh = Mesh::default().in_cluster(&lab, &api)?.start(&lab)?;
    eventually("a leader", DEADLINE, || holder(&api).is_some());
    let first = holder(&api);
    let mut second = mesh.start_replica(lab.node("b"))?;
    mesh.kill_control();
    api.apply(policy("0"))?;
    second.await_stderr(DEADLINE, |line| line.contains("leads identity="))?;
    assert_ne!(holder(&api), first);
    eventually("an Event by the second", DEADLINE, || {
        let told = told(&api, "AuthorizationPolicy", "web");
        told.iter()
            .any(|event| event["reportingInstance"].as_str() == holder(&api).as_deref())
    });

    // One that can't reach the API server leads no longer, though nobody takes its place.
    api.stop_answering();
    second.await_stderr(DEADLINE, |line| line.contains("leads no longer"))?;
    api.resume()?;
    eventually("it to lead again", DEADLINE, || {
        second.stderr().matches("leads identity=").count() == 2
    });
    // One that stops in order waits for nobody.
    second.stop()?;
    assert_eq!(holder(&api), None);
    Ok(())
}

/// Status, reason and message of a pod's own condition.
fn enrolled(api: &ApiServer, name: &str) -> Option<(String, String, String)> {
    let pod = api.object("Pod", "shop", name)?;
    let conditions = pod["status"]["conditions"].as_array()?;
    let ours = conditions
        .iter()
        .find(|condition| condition["type"] == "ambit.dev/Enrolled")?;
    let text = |field: &str| ours[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

fn becomes(api: &ApiServer, pod: &str, status: &str, reason: &str) {
    eventually(&format!("{pod} to say {status} {reason}"), DEADLINE, || {
        enrolled(api, pod).is_some_and(|says| says.0 == status && says.1 == reason)
    });
}

fn namespace(label: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"ambit.dev/mesh": label}},
    })
}

/// A pod that is there for the API server alone.
fn on_paper(name: &str, spec: &Value, address: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-of-{name}")},
        "spec": {"nodeName": "a", "containers": [{"name": "main", "image": "none"}]},
        "status": {
            "phase": "Running", "podIP": address, "hostIP": "192.0.2.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let fields = spec.as_object().into_iter().flatten();
    for (field, value) in fields {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[test]
fn a_pod_says_whether_it_is_enrolled_and_why_not() -> Result<()> {
    let lab = Lab::builder("says").build()?;
    lab.namespace("shop").enrolled()?;
    lab.node("a").pod("near", PodSpec::in_namespace("shop"))?;
    lab.node("b").pod("far", PodSpec::in_namespace("shop"))?;
    let api = installed(&lab)?;
    api.apply(namespace("disabled"))?;
    let mut mesh = Mesh::default().in_cluster(&lab, &api)?.start(&lab)?;
    api.apply(namespace("enabled"))?;
    for pod in ["near", "far"] {
        becomes(&api, pod, "True", "Enrolled");
        eventually("an Event that says the same", DEADLINE, || {
            let events = told(&api, "Pod", pod);
            events.len() == 1 && events[0]["reason"] == "Enrolled"
        });
    }
    // What can't be enrolled says why.
    api.apply(on_paper("host", &json!({"hostNetwork": true}), "192.0.2.1"))?;
    api.apply(on_paper("lost", &json!({}), "10.99.99.99"))?;
    becomes(&api, "host", "False", "HostNetwork");
    becomes(&api, "lost", "False", "NoInterface");
    let (_, _, message) = enrolled(&api, "lost").unwrap();
    assert!(message.contains("10.99.99.99"), "{message}");
    let lost = api.object("Pod", "shop", "lost").unwrap();
    let mut conditions = lost["status"]["conditions"].as_array().unwrap().iter();
    assert!(conditions.any(|it| it["type"] == "Ready"), "{lost}");
    eventually("an Event on it", DEADLINE, || {
        let events = told(&api, "Pod", "lost");
        events.iter().any(|event| {
            event["type"] == "Warning"
                && event["reason"] == "NotEnrolled"
                && event["note"] == message
        })
    });
    // One that leaves says so, though its agent may be away just then.
    mesh.kill_agent("b");
    api.apply(namespace("disabled"))?;
    becomes(&api, "near", "False", "NotAsked");
    assert_eq!(enrolled(&api, "far").unwrap().0, "True");
    mesh.start_agent(lab.node("b"))?;
    becomes(&api, "far", "False", "NotAsked");
    Ok(())
}
