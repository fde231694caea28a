//! The real client, in the network namespace of a node.

use std::{
    fmt::Debug,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};
use lab::{ApiServer, Lab, Result};
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// A user as the agents are.
pub(crate) const NODE: &str = "system:serviceaccount:ambit-system:ambit-node";
/// How long something may take that happens at once.
const SOON: Duration = Duration::from_secs(10);

/// A client whose sockets are made in the namespace of node b.
pub(crate) struct Inside {
    runtime: Runtime,
    client: Client,
}

/// What a watcher says, in words: `init`, `has web`, `done`, `apply web`, `delete web`, `error`.
pub(crate) struct Told(Receiver<String>);

impl Inside {
    pub(crate) fn new(lab: &Lab, server: &ApiServer, user: &str) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig(user)?).unwrap();
        // Its threads are in the namespace, since the one that makes them is.
        let runtime = lab.node("b").in_namespace(|| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
        })?;
        let client = runtime.block_on(runtime.spawn(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            Client::try_from(config.unwrap()).unwrap()
        }));
        let client = client.unwrap();
        Ok(Self { runtime, client })
    }

    /// Runs a part of a story inside.
    pub(crate) fn run<T, F>(&self, story: impl FnOnce(Client) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let part = self.runtime.spawn(story(self.client.clone()));
        self.runtime.block_on(part).unwrap()
    }

    /// Follows objects by kube's own watcher.
    pub(crate) fn follow<K>(
        &self,
        api: impl FnOnce(Client) -> Api<K>,
        config: watcher::Config,
    ) -> Told
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        let events = watcher(api(self.client.clone()), config);
        self.runtime.spawn(async move {
            pin_mut!(events);
            while let Some(event) = events.next().await {
                let failed = event.is_err();
                let text = match event {
                    Ok(watcher::Event::Init) => "init".into(),
                    Ok(watcher::Event::InitDone) => "done".into(),
                    Ok(watcher::Event::InitApply(object)) => format!("has {}", object.name_any()),
                    Ok(watcher::Event::Apply(object)) => format!("apply {}", object.name_any()),
                    Ok(watcher::Event::Delete(object)) => format!("delete {}", object.name_any()),
                    Err(error) => format!("error {error:?}"),
                };
                if sender.send(text).is_err() {
                    return;
                }
                if failed {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Told(receiver)
    }
}

impl Told {
    pub(crate) fn next(&self) -> String {
        self.0
            .recv_timeout(SOON)
            .expect("the watcher says something")
    }

    /// The next are exactly these.
    #[track_caller]
    pub(crate) fn expect(&self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.next(), *expected);
        }
    }

    /// After any number of errors, `expected` is said. Returns the errors.
    #[track_caller]
    pub(crate) fn after_errors(&self, expected: &str) -> Vec<String> {
        let mut errors = Vec::new();
        loop {
            let next = self.next();
            if !next.starts_with("error") {
                assert_eq!(next, expected);
                return errors;
            }
            errors.push(next);
        }
    }
}

/// What the server said when it refused: code and reason.
pub(crate) fn refused<T: Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("not refused by the server: {other:?}"),
    }
}
