//! What clients write.

use k8s_openapi::{
    api::{
        authentication::v1::{TokenReview, TokenReviewSpec},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret, Service},
        events::v1::Event,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
    },
};
use lab::{ApiServer, Lab, PodSpec, Result};
use serde_json::{Value, json};

use crate::client::{Inside, NODE, refused};

const CONTROL: &str = "system:serviceaccount:ambit-system:ambit-control";

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn lease(holder: &str) -> Lease {
    object(json!({
        "metadata": { "name": "ambit-control" },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15 },
    }))
}

#[test]
fn of_two_that_write_one_version_of_a_lease_one_is_refused() -> Result<()> {
    let lab = Lab::builder("lease").build()?;
    lab.namespace("ambit-system").not_enrolled()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, CONTROL)?;
    inside.run(async |client| {
        let leases: Api<Lease> = Api::namespaced(client, "ambit-system");
        let post = PostParams::default();
        let first = leases.create(&post, &lease("one")).await.unwrap();
        let again = leases.create(&post, &lease("two")).await;
        assert_eq!(refused(again), (409, "AlreadyExists".into()));
        let mut renewed = first.clone();
        renewed.spec.as_mut().unwrap().lease_transitions = Some(1);
        leases
            .replace("ambit-control", &post, &renewed)
            .await
            .unwrap();
        let late = leases.replace("ambit-control", &post, &first).await;
        assert_eq!(refused(late), (409, "Conflict".into()));
        let blind = leases.replace("ambit-control", &post, &lease("two")).await;
        assert_eq!(refused(blind), (422, "Invalid".into()));
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": first.metadata.resource_version },
            "spec": { "holderIdentity": "two" },
        }));
        let late = leases
            .patch("ambit-control", &PatchParams::default(), &patch)
            .await;
        assert_eq!(refused(late), (409, "Conflict".into()));
        let elsewhere: Api<Lease> = Api::namespaced(leases.into_client(), "nowhere");
        let nowhere = elsewhere.create(&post, &lease("one")).await;
        assert_eq!(refused(nowhere), (404, "NotFound".into()));
    });
    let kept = server
        .object("Lease", "ambit-system", "ambit-control")
        .unwrap();
    assert_eq!(kept["spec"]["leaseTransitions"], 1);
    Ok(())
}

#[test]
fn objects_are_applied_patched_and_deleted_with_what_they_own() -> Result<()> {
    let lab = Lab::builder("objects").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, CONTROL)?;
    inside.run(async |client| {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
        let gateway = ApiResource::from_gvk_with_plural(&kind, "gateways");
        let gateways: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), "default", &gateway);
        let body = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": "waypoint", "labels": { "a": "1" } },
            "spec": { "gatewayClassName": "ambit-waypoint" },
            "status": { "ignored": true },
        });
        let by = PatchParams::apply("ambit");
        let made = gateways
            .patch("waypoint", &by, &Patch::Apply(&body))
            .await
            .unwrap();
        assert_eq!(made.metadata.generation, Some(1));
        assert!(made.data.get("status").is_none(), "{made:?}");
        let status = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "labels": { "ignored": "1" } },
            "spec": {},
            "status": { "conditions": [{ "type": "Accepted", "status": "True" }] },
        });
        let told = gateways
            .patch_status("waypoint", &by, &Patch::Apply(&status))
            .await
            .unwrap();
        assert_eq!(told.data["status"]["conditions"][0]["type"], "Accepted");
        assert_eq!(told.data["spec"], body["spec"]);
        assert_eq!(told.metadata.labels, made.metadata.labels);
        assert_eq!(told.metadata.generation, Some(1));

        let owned: ConfigMap = object(json!({
            "metadata": { "name": "of-waypoint", "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "name": "waypoint", "uid": made.metadata.uid,
            }] },
            "data": { "a": "1", "b": "2" },
        }));
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        maps.create(&PostParams::default(), &owned).await.unwrap();
        let patch = Patch::Merge(json!({ "data": { "a": null, "c": "3" } }));
        let patched = maps
            .patch("of-waypoint", &PatchParams::default(), &patch)
            .await
            .unwrap();
        let keys: Vec<_> = patched.data.unwrap().into_keys().collect();
        assert_eq!(keys, ["b", "c"]);
        gateways
            .delete("waypoint", &DeleteParams::default())
            .await
            .unwrap();
        let gone = gateways.delete("waypoint", &DeleteParams::default()).await;
        assert_eq!(refused(gone), (404, "NotFound".into()));
        assert_eq!(maps.get_opt("of-waypoint").await.unwrap(), None);

        let secrets: Api<Secret> = Api::namespaced(client, "default");
        let secret = object(json!({ "metadata": { "name": "ca" }, "stringData": { "k": "v" } }));
        let secret = secrets
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
        assert_eq!(secret.data.unwrap()["k"].0, b"v");
    });
    Ok(())
}

#[test]
fn managers_that_apply_one_field_differently_are_in_conflict() -> Result<()> {
    let lab = Lab::builder("managers").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, CONTROL)?;
    inside.run(async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let apply = async |by: &str, force: bool, data: Value| {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" }, "data": data,
            });
            let mut by = PatchParams::apply(by);
            by.force = force;
            let applied = maps.patch("x", &by, &Patch::Apply(&map)).await;
            applied.map(|map| map.data.unwrap_or_default())
        };
        let one = apply("one", false, json!({ "a": "1", "b": "1" })).await;
        assert_eq!(one.unwrap().len(), 2);
        // What both want is both's, and stays as long as one wants it.
        apply("two", false, json!({ "a": "1" })).await.unwrap();
        let refused_to_two = apply("two", false, json!({ "a": "2" })).await;
        assert_eq!(refused(refused_to_two), (409, "Conflict".into()));
        let forced = apply("two", true, json!({ "a": "2" })).await.unwrap();
        assert_eq!((&*forced["a"], &*forced["b"]), ("2", "1"));
        // It is the other's now, and doesn't go with the first's wish.
        let left = apply("one", false, json!({})).await.unwrap();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), ["a"]);
        let gone = apply("two", false, json!({})).await.unwrap();
        assert_eq!(gone.len(), 0);
    });
    Ok(())
}

#[test]
fn what_belongs_to_nobody_any_more_goes_and_a_service_has_an_address() -> Result<()> {
    let lab = Lab::builder("orphans").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, CONTROL)?;
    inside.run(async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let orphan: ConfigMap = object(json!({ "metadata": { "name": "x", "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone",
        }] } }));
        maps.create(&PostParams::default(), &orphan).await.unwrap();
        assert_eq!(maps.get_opt("x").await.unwrap(), None);
        let services: Api<Service> = Api::namespaced(client, "default");
        let service = object(json!({
            "metadata": { "name": "x" }, "spec": { "ports": [{ "port": 80 }] },
        }));
        let made = services.create(&PostParams::default(), &service).await;
        let spec = made.unwrap().spec.unwrap();
        assert_eq!(
            spec.cluster_ips,
            spec.cluster_ip.map(|address| vec![address])
        );
        assert!(spec.cluster_ips.unwrap()[0].starts_with("10.96."));
    });
    Ok(())
}

#[test]
fn an_event_is_refused_as_kubernetes_would() -> Result<()> {
    let lab = Lab::builder("events").build()?;
    lab.namespace("shop").enrolled()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;
    let event = |regarding: &str, note: String| -> Event {
        object(json!({
            "metadata": { "generateName": "web." },
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": { "kind": "Pod", "name": "web", "namespace": regarding },
            "reportingController": "ambit.dev/node", "reportingInstance": "a",
            "action": "Enrol", "reason": "NotEnrolled", "type": "Warning", "note": note,
        }))
    };
    let bare: Event = object(json!({ "metadata": { "name": "x" }, "eventTime": null }));
    let table = [
        (event("shop", "why".into()), None),
        (event("other", "why".into()), Some(422)),
        (event("shop", "x".repeat(1025)), Some(422)),
        (bare, Some(422)),
    ];
    for (event, expected) in table {
        let sent = event.clone();
        let result = inside.run(async move |client| {
            let events: Api<Event> = Api::namespaced(client, "shop");
            events.create(&PostParams::default(), &sent).await
        });
        let code = match result {
            Ok(_) => None,
            failed => Some(refused(failed).0),
        };
        assert_eq!(code, expected, "{event:?}");
    }
    assert_eq!(server.objects("Event").len(), 1);
    Ok(())
}

#[test]
fn a_token_is_reviewed_for_its_audience_and_ends_with_its_pod() -> Result<()> {
    let lab = Lab::builder("review").build()?;
    let agent = lab
        .node("a")
        .pod("node-x", PodSpec::in_namespace("ambit-system"))?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, CONTROL)?;
    let token = server.token(NODE, ("node-x", agent.uid()), "a", &["ambit-ca"]);
    let review = |token: &str, audience: &str| {
        let spec = TokenReviewSpec {
            token: token.into(),
            audiences: Some(vec![audience.into()]),
        };
        inside.run(async move |client| {
            let review = TokenReview {
                spec,
                ..TokenReview::default()
            };
            let reviews = Api::<TokenReview>::all(client);
            let answer = reviews.create(&PostParams::default(), &review).await;
            answer.unwrap().status.unwrap()
        })
    };
    let status = review(&token, "ambit-ca");
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.audiences, Some(vec!["ambit-ca".into()]));
    let user = status.user.unwrap();
    assert_eq!(user.username.as_deref(), Some(NODE));
    assert!(
        user.groups
            .unwrap()
            .contains(&"system:serviceaccounts:ambit-system".into())
    );
    let extra = user.extra.unwrap();
    let said = |name: &str| extra[&format!("authentication.kubernetes.io/{name}")].clone();
    assert_eq!(said("pod-name"), ["node-x"]);
    assert_eq!(said("pod-uid"), [agent.uid()]);
    assert_eq!(said("node-name"), ["a"]);

    for (token, audience) in [(token.as_str(), "other"), ("made up", "ambit-ca")] {
        let status = review(token, audience);
        assert_eq!(status.authenticated, None, "{token} for {audience}");
        assert!(status.error.is_some(), "{token} for {audience}");
    }
    server.delete("Pod", "ambit-system", "node-x")?;
    assert_eq!(review(&token, "ambit-ca").authenticated, None);
    Ok(())
}
