//! The lab's API server, as the real client sees it.

use std::{collections::BTreeSet, time::Duration};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};
use lab::{ApiServer, Lab, PodSpec, Result};

const NODE: &str = "system:serviceaccount:ambit-system:ambit-node";
/// How long something may take that happens at once.
const SOON: Duration = Duration::from_secs(10);

/// Runs a client of the server in the network namespace of node b.
fn client<T: Send>(
    lab: &Lab,
    server: &ApiServer,
    user: &str,
    story: impl AsyncFnOnce(Client) -> T + Send,
) -> Result<T> {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig(user)?).unwrap();
    lab.node("b").in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            story(Client::try_from(config.unwrap()).unwrap()).await
        })
    })
}

/// What a watcher says next.
async fn next<S, T>(events: &mut S) -> T
where
    S: Stream<Item = T> + Unpin,
{
    let next = tokio::time::timeout(SOON, events.next()).await;
    next.expect("there is an event")
        .expect("the stream goes on")
}

/// The names that a watcher's list tells, up to its end.
async fn listed<S>(events: &mut S) -> BTreeSet<String>
where
    S: Stream<Item = watcher::Result<watcher::Event<Pod>>> + Unpin,
{
    let mut names = BTreeSet::new();
    loop {
        match next(events).await.unwrap() {
            watcher::Event::Init => {}
            watcher::Event::InitApply(pod) => {
                names.insert(pod.metadata.name.unwrap());
            }
            watcher::Event::InitDone => return names,
            other => panic!("in a list: {other:?}"),
        }
    }
}

#[test]
fn a_watcher_lists_the_manifests_and_follows_them() -> Result<()> {
    let lab = Lab::builder("api").build()?;
    lab.namespace("shop").enrolled()?;
    let web = lab.node("a").pod("web", PodSpec::in_namespace("shop"))?;
    let server = ApiServer::start(&lab)?;
    client(&lab, &server, NODE, async |client| {
        let pods: Api<Pod> = Api::all(client);
        let mut events = watcher(pods, watcher::Config::default()).boxed();
        assert_eq!(listed(&mut events).await, BTreeSet::from(["web".into()]));
        let db = lab
            .node("a")
            .pod("db", PodSpec::in_namespace("shop"))
            .unwrap();
        let watcher::Event::Apply(pod) = next(&mut events).await.unwrap() else {
            panic!("a new pod is told");
        };
        let status = pod.status.unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("db"));
        assert_eq!(pod.metadata.uid.as_deref(), Some(db.uid()));
        assert_eq!(status.pod_ip, Some(db.address().to_string()));
        assert!(pod.metadata.managed_fields.is_some());
        web.delete().unwrap();
        let watcher::Event::Delete(gone) = next(&mut events).await.unwrap() else {
            panic!("a deleted pod is told");
        };
        assert_eq!(gone.metadata.name.as_deref(), Some("web"));
    })?;
    assert!(
        server
            .requests()
            .iter()
            .all(|it| it.user == NODE && it.status == 200)
    );
    Ok(())
}
