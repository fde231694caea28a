//! Lists and watches when all is well.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt, api::ListParams, runtime::watcher};
use lab::{ApiServer, Lab, PodSpec, Result, eventually};
use serde_json::json;

use crate::client::{Inside, NODE};

#[test]
fn a_watcher_lists_the_manifests_and_follows_them() -> Result<()> {
    let lab = Lab::builder("api").build()?;
    lab.namespace("shop").enrolled()?;
    let web = lab.node("a").pod("web", PodSpec::in_namespace("shop"))?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;

    let pods = inside.follow(Api::<Pod>::all, watcher::Config::default());
    pods.expect(&["init", "has web", "done"]);
    let db = lab.node("a").pod("db", PodSpec::in_namespace("shop"))?;
    pods.expect(&["apply db"]);
    let pod = inside.run(async |client| Api::<Pod>::namespaced(client, "shop").get("db").await);
    let pod = pod.unwrap();
    assert_eq!(pod.uid().as_deref(), Some(db.uid()));
    let address = pod.status.and_then(|status| status.pod_ip);
    assert_eq!(address, Some(db.address().to_string()));
    let managed = pod.metadata.managed_fields;
    assert!(managed.is_some_and(|managed| !managed.is_empty()));

    web.delete()?;
    pods.expect(&["delete web"]);
    let streaming = watcher::Config::default().streaming_lists();
    let again = inside.follow(Api::<Pod>::all, streaming);
    again.expect(&["init", "has db", "done"]);
    db.delete()?;
    again.expect(&["delete db"]);
    assert!(
        server
            .requests()
            .iter()
            .all(|it| it.user == NODE && it.status == 200)
    );
    Ok(())
}

#[test]
fn a_list_comes_in_pages_of_one_version() -> Result<()> {
    let lab = Lab::builder("pages").build()?;
    let spec = || PodSpec::in_namespace("shop");
    for name in ["p1", "p2", "p3", "p4", "p5"] {
        lab.node("a")
            .schedule(name, spec())?
            .announce(lab::Phase::Pending)?;
    }
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;

    let pods = inside.follow(Api::<Pod>::all, watcher::Config::default().page_size(2));
    pods.expect(&[
        "init", "has p1", "has p2", "has p3", "has p4", "has p5", "done",
    ]);
    let pages = server.requests();
    let pages = pages.iter().filter(|it| it.path.contains("limit=2"));
    assert_eq!(pages.count(), 3);

    let list = |client, parameters: ListParams| async move {
        let list = Api::<Pod>::all(client).list(&parameters).await?;
        let names: Vec<_> = list.iter().map(ResourceExt::name_any).collect();
        kube::Result::Ok((names, list.metadata.continue_.unwrap_or_default()))
    };
    let first = inside.run(|client| list(client, ListParams::default().limit(2)));
    let (names, token) = first.unwrap();
    assert_eq!(names, ["p1", "p2"]);
    // A page is of the version of the first, whatever happened since.
    server.delete("Pod", "shop", "p3")?;
    let parameters = ListParams::default().limit(2).continue_token(&token);
    let second = inside.run(|client| list(client, parameters.clone()));
    assert_eq!(second.unwrap().0, ["p3", "p4"]);
    server.expire_watches();
    let late = inside.run(|client| list(client, parameters));
    assert_eq!(crate::client::refused(late), (410, "Expired".into()));
    Ok(())
}

#[test]
fn selectors_choose_what_is_listed_and_watched() -> Result<()> {
    let lab = Lab::builder("selectors").build()?;
    lab.node("a")
        .pod("here", PodSpec::in_namespace("shop").label("app", "web"))?;
    lab.node("b")
        .pod("there", PodSpec::in_namespace("shop").label("app", "web"))?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;

    let of_node = watcher::Config::default().fields("spec.nodeName=a");
    inside
        .follow(Api::<Pod>::all, of_node)
        .expect(&["init", "has here", "done"]);
    let of_app = inside.follow(
        Api::<Pod>::all,
        watcher::Config::default().labels("app=web"),
    );
    of_app.expect(&["init", "has here", "has there", "done"]);
    // One that stops to match is gone, for this watch.
    let mut object = server.object("Pod", "shop", "there").unwrap();
    object["metadata"]["labels"] = json!({});
    server.apply(object)?;
    of_app.expect(&["delete there"]);
    let nodes = inside.follow(Api::<Node>::all, watcher::Config::default());
    nodes.expect(&["init", "has a", "has b", "done"]);
    Ok(())
}

#[test]
fn a_quiet_watch_that_times_out_goes_on_from_its_last_bookmark() -> Result<()> {
    let lab = Lab::builder("bookmarks").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;
    let pods = inside.follow(Api::<Pod>::all, watcher::Config::default().timeout(2));
    pods.expect(&["init", "done"]);
    // The version rises by what isn't watched.
    server.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "other", "namespace": "shop" },
    }))?;
    let map = server.object("ConfigMap", "shop", "other").unwrap();
    let version = map["metadata"]["resourceVersion"].as_str().unwrap();
    let from = format!("resourceVersion={version}");
    eventually("the next watch", Duration::from_secs(20), || {
        let requests = server.requests();
        requests
            .iter()
            .any(|it| it.path.contains("watch=true") && it.path.contains(&from))
    });
    let lists = server.requests();
    let lists = lists.iter().filter(|it| it.path.contains("limit="));
    assert_eq!(lists.count(), 1);
    Ok(())
}
