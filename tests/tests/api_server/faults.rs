//! Watchers survive what the server does to them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher,
};
use lab::{ApiServer, Lab, Result};
use serde_json::json;

use crate::client::{Inside, NODE, Told, refused};

fn map(server: &ApiServer, name: &str) -> Result<()> {
    server.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "shop" },
    }))
}

/// A server with the map `first`, and a watcher that has seen it.
fn watched(lab: &Lab) -> Result<(ApiServer, Inside, Told)> {
    let server = ApiServer::start(lab)?;
    let inside = Inside::new(lab, &server, NODE)?;
    map(&server, "first")?;
    // Without bookmarks nothing but the change itself can bring it.
    let config = watcher::Config::default().disable_bookmarks();
    let maps = inside.follow(Api::<ConfigMap>::all, config);
    maps.expect(&["init", "has first", "done"]);
    // What comes as an event proves that the watch is open.
    map(&server, "second")?;
    maps.expect(&["apply second"]);
    Ok((server, inside, maps))
}

#[test]
fn a_watch_from_a_forgotten_version_starts_anew() -> Result<()> {
    let lab = Lab::builder("expired").build()?;
    let (server, _inside, maps) = watched(&lab)?;
    server.expire_watches();
    let errors = maps.after_errors("init");
    assert!(errors.len() == 1 && errors[0].contains("410"), "{errors:?}");
    maps.expect(&["has first", "has second", "done"]);

    // One that was away meanwhile is told by the first line of its next watch.
    server.stop_answering();
    server.expire_watches();
    map(&server, "third")?;
    server.heal()?;
    let errors = maps.after_errors("init");
    let gone = errors.last().is_some_and(|error| error.contains("410"));
    assert!(gone, "{errors:?}");
    maps.expect(&["has first", "has second", "has third", "done"]);
    Ok(())
}

#[test]
fn a_cut_watch_goes_on_where_it_was() -> Result<()> {
    let lab = Lab::builder("cut").build()?;
    let (server, _inside, maps) = watched(&lab)?;
    server.cut_watches();
    map(&server, "third")?;
    // Neither lost nor told twice. To kube a connection that ends is no error.
    maps.after_errors("apply third");
    map(&server, "fourth")?;
    maps.expect(&["apply fourth"]);
    Ok(())
}

#[test]
fn what_a_broken_line_told_is_lost_to_kubes_watcher() -> Result<()> {
    let lab = Lab::builder("broken").build()?;
    let (server, _inside, maps) = watched(&lab)?;
    server.break_json("ConfigMap");
    map(&server, "third")?;
    let told = maps.next();
    assert!(told.starts_with("error WatchFailed"), "{told}");
    // It reads on behind the line. Whoever uses it has to start anew at such an error.
    map(&server, "fourth")?;
    maps.expect(&["apply fourth"]);
    Ok(())
}

#[test]
fn a_server_that_is_away_refuses_and_serves_on_when_it_is_back() -> Result<()> {
    let lab = Lab::builder("away").build()?;
    let (server, inside, maps) = watched(&lab)?;
    server.stop_answering();
    let told = maps.next();
    assert!(told.starts_with("error"), "{told}");
    let list = async |client| {
        Api::<ConfigMap>::all(client)
            .list(&Default::default())
            .await
    };
    assert!(matches!(
        inside.run(list),
        Err(kube::Error::HyperError(_) | kube::Error::Service(_))
    ));
    map(&server, "third")?;
    server.resume()?;
    maps.after_errors("apply third");

    server.slow(Duration::from_millis(20));
    assert_eq!(inside.run(list).unwrap().items.len(), 3);
    map(&server, "fourth")?;
    maps.expect(&["apply fourth"]);
    Ok(())
}

#[test]
fn a_forgotten_version_may_be_told_by_the_status() -> Result<()> {
    let lab = Lab::builder("gone").build()?;
    let (server, inside, _maps) = watched(&lab)?;
    server.expire_watches_by_status();
    let watch = inside.run(async |client| {
        let maps = Api::<ConfigMap>::all(client);
        maps.watch(&Default::default(), "1001").await.map(|_| ())
    });
    assert_eq!(refused(watch), (410, "Expired".into()));
    Ok(())
}

#[test]
fn a_kind_that_is_not_installed_is_watched_once_it_is() -> Result<()> {
    let lab = Lab::builder("hidden").build()?;
    let server = ApiServer::start(&lab)?;
    let inside = Inside::new(&lab, &server, NODE)?;
    let policy = |name: &str| {
        server.apply(json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": name, "namespace": "shop" }, "spec": {},
        }))
    };
    let policies = |client| {
        let kind = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
        let resource = ApiResource::from_gvk_with_plural(&kind, "authorizationpolicies");
        Api::<DynamicObject>::all_with(client, &resource)
    };
    let list = async move |client| policies(client).list(&Default::default()).await;
    server.hide("AuthorizationPolicy");
    policy("first")?;
    let Err(kube::Error::Api(status)) = inside.run(list) else {
        panic!("it isn't installed");
    };
    assert_eq!(
        (status.code, status.message.trim()),
        (404, "404 page not found")
    );

    server.show("AuthorizationPolicy");
    let told = inside.follow(policies, watcher::Config::default());
    told.expect(&["init", "has first", "done"]);
    policy("second")?;
    told.expect(&["apply second"]);
    server.hide("AuthorizationPolicy");
    let error = told.next();
    assert!(
        error.starts_with("error") && error.contains("404"),
        "{error}"
    );
    policy("third")?;
    server.show("AuthorizationPolicy");
    told.after_errors("apply third");
    Ok(())
}
