use serde_json::json;

use super::*;
use crate::discovery::{facts::Kind, schema::SCHEMAS};

struct Followed {
    applier: Applier,
    store: Arc<Store>,
}

fn schema(kind: Kind) -> &'static Schema {
    SCHEMAS.iter().find(|schema| schema.kind == kind).unwrap()
}

impl Followed {
    fn new() -> Self {
        let store = Arc::new(Store::default());
        Self {
            applier: Applier::new("cluster.local".into(), store.clone()),
            store,
        }
    }

    fn tell(&mut self, kind: Kind, told: impl IntoIterator<Item = Told>) {
        let schema = schema(kind);
        let messages = told.into_iter().map(|told| Message { schema, told });
        self.applier.apply(messages.collect());
    }

    fn list(&mut self, kind: Kind, objects: &[Value]) {
        let objects = objects.iter().map(object);
        let list = [Told::Restarted].into_iter().chain(objects);
        self.tell(kind, list.chain([Told::Complete]));
    }

    /// Names of the workloads that are known.
    fn pods(&self) -> Vec<String> {
        let snapshot = self.store.snapshot();
        let mut names: Vec<String> = snapshot
            .workloads()
            .map(|workload| workload.name.name.to_string())
            .collect();
        names.sort();
        names
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.applier.problems().list();
        problems.iter().map(ToString::to_string).collect()
    }
}

/// As an item of a list: without type.
fn object(value: &Value) -> Told {
    let object = serde_json::from_value(value.clone()).unwrap();
    Told::Object(Box::new(object))
}

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("u-{name}")},
        "spec": {"nodeName": "a"},
        "status": {"podIP": address},
    })
}

fn failure(code: u16) -> watcher::Error {
    let status = json!({"status": "Failure", "code": code, "message": "no", "reason": "No"});
    let status = serde_json::from_value(status).unwrap();
    watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
}

#[test]
fn a_list_that_begins_anew_takes_out_what_is_not_in_it_any_more() {
    let mut followed = Followed::new();
    followed.list(Kind::Pod, &[pod("one", "10.0.0.1"), pod("two", "10.0.0.2")]);
    assert_eq!(followed.pods(), ["one", "two"]);
    // Until it is complete, what was known serves.
    followed.tell(
        Kind::Pod,
        [Told::Restarted, object(&pod("two", "10.0.0.2"))],
    );
    assert_eq!(followed.pods(), ["one", "two"]);
    followed.tell(
        Kind::Pod,
        [object(&pod("three", "10.0.0.3")), Told::Complete],
    );
    assert_eq!(followed.pods(), ["three", "two"]);
    let deleted = serde_json::from_value(pod("two", "10.0.0.2")).unwrap();
    followed.tell(Kind::Pod, [Told::Deleted(Box::new(deleted))]);
    assert_eq!(followed.pods(), ["three"]);
}

#[test]
fn an_object_that_breaks_serves_as_it_was_and_is_told_of_until_it_is_mended() {
    let mut followed = Followed::new();
    followed.list(
        Kind::Pod,
        &[pod("one", "10.0.0.1"), pod("two", "no address")],
    );
    assert_eq!(followed.pods(), ["one"]);
    let problems = followed.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    for part in ["API server", "Pod shop/two", "status.podIP", "no address"] {
        assert!(problems[0].contains(part), "{problems:?}");
    }
    followed.tell(Kind::Pod, [object(&pod("one", "neither"))]);
    assert_eq!((followed.pods().len(), followed.problems().len()), (1, 2));
    followed.tell(Kind::Pod, [object(&pod("two", "10.0.0.2"))]);
    assert_eq!((followed.pods().len(), followed.problems().len()), (2, 1));
    followed.list(Kind::Pod, &[pod("two", "10.0.0.2")]);
    assert_eq!((followed.pods().len(), followed.problems().len()), (1, 0));
}

#[test]
fn a_kind_that_cannot_be_followed_is_told_of_and_serves_on() {
    for (code, cure) in [
        (403, "ClusterRole"),
        (401, "token"),
        (500, "can't be followed"),
    ] {
        let mut followed = Followed::new();
        followed.list(Kind::Pod, &[pod("one", "10.0.0.1")]);
        followed.tell(Kind::Pod, [Told::Failed(failure(code))]);
        assert_eq!(followed.pods(), ["one"]);
        let problems = followed.problems();
        assert!(
            problems[0].contains("pods") && problems[0].contains(cure),
            "{problems:?}"
        );
        followed.tell(Kind::Pod, [Told::Recovered]);
        assert_eq!(followed.problems(), [""; 0]);
    }
}

#[test]
fn it_is_complete_when_every_kind_was_told_of_and_policies_may_be_missing() {
    let mut followed = Followed::new();
    for schema in &SCHEMAS {
        assert!(!followed.applier.is_complete(), "{}", schema.plural);
        if schema.optional {
            followed.tell(schema.kind, [Told::Restarted, Told::Missing]);
        } else {
            followed.tell(schema.kind, [Told::Restarted, Told::Missing]);
            assert!(!followed.applier.is_complete(), "{}", schema.plural);
            followed.list(schema.kind, &[]);
        }
    }
    assert!(followed.applier.is_complete());
    assert_eq!(followed.problems(), [""; 0]);
}

#[test]
fn policies_stay_in_force_when_their_kind_goes_missing() {
    let mut followed = Followed::new();
    let policy = json!({
        "metadata": {"namespace": "shop", "name": "strict"},
        "spec": {"mtls": {"mode": "STRICT"}},
    });
    followed.list(Kind::PeerAuthentication, &[policy]);
    let before = followed.store.snapshot().generation();
    followed.tell(Kind::PeerAuthentication, [Told::Restarted, Told::Missing]);
    assert_eq!(followed.store.snapshot().generation(), before);
    let problems = followed.problems();
    assert!(
        problems[0].contains("no peerauthentications any more"),
        "{problems:?}"
    );
}
