//! One kind of object: listed, then followed, again and again.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::DynamicObject,
    core::ApiResource,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::mpsc, time};

use crate::discovery::schema::Schema;

/// Objects a page of a list: each may have 20 KB of what nobody here needs.
const PAGE: u32 = 250;
/// When a watch that failed is tried again: after about this long, then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A thousand agents ask an API server that is back 30 times a second for each kind.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A watch that hasn't failed again for as long is open: longer than [`super::CONNECT`] takes.
const PROBATION: Duration = Duration::from_secs(15);

/// What a watch tells of its kind.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) schema: &'static Schema,
    pub(super) told: Told,
}

#[derive(Debug)]
pub(super) enum Told {
    /// A list begins: what isn't in it is gone at its end.
    Restarted,
    /// An object is there, or has changed.
    Object(Box<DynamicObject>),
    /// The list is complete.
    Complete,
    /// An object is gone.
    Deleted(Box<DynamicObject>),
    /// The server doesn't know the kind.
    Missing,
    /// It is tried again.
    Failed(watcher::Error),
    /// A watch that failed goes on.
    Recovered,
}

/// Follows one kind for as long as somebody listens.
pub(super) async fn watch(
    client: Client,
    schema: &'static Schema,
    messages: mpsc::Sender<Message>,
) {
    let mut watch = Watch {
        client,
        schema,
        messages,
        pauses: Pauses(FIRST_PAUSE),
    };
    let mut version = 0;
    loop {
        let ended = match watch.follow(schema.versions[version]).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        match ended {
            Ended::Unheard => return,
            Ended::Behind => {}
            // A server that is older may have an older version.
            Ended::Missing if version + 1 < schema.versions.len() => version += 1,
            Ended::Missing => {
                version = 0;
                if watch.tell(Told::Missing).await.is_err() {
                    return;
                }
                watch.pause().await;
            }
        }
    }
}

/// Why a kind isn't followed any more, or not like that.
enum Ended {
    /// Nobody listens.
    Unheard,
    /// Something was missed: what it was is known only after another list.
    Behind,
    /// The server doesn't know the kind, in that version.
    Missing,
}

struct Watch {
    client: Client,
    schema: &'static Schema,
    messages: mpsc::Sender<Message>,
    pauses: Pauses,
}

impl Watch {
    async fn follow(&mut self, version: &str) -> Result<Infallible, Ended> {
        let resource = resource(self.schema, version);
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let mut events = pin!(watcher(api, watcher::Config::default().page_size(PAGE)));
        let mut has_failed = false;
        loop {
            let event = if has_failed {
                time::timeout(PROBATION, events.next()).await
            } else {
                Ok(events.next().await)
            };
            has_failed = false;
            match event {
                // A watch that is open says nothing as long as nothing happens.
                Err(_) => self.tell(Told::Recovered).await?,
                // It never ends by itself.
                Ok(None) => return Err(Ended::Behind),
                Ok(Some(Ok(event))) => {
                    // That a list is asked for says nothing of the server.
                    if !matches!(event, Event::Init) {
                        self.pauses.restart();
                    }
                    self.tell(told(event)).await?;
                }
                Ok(Some(Err(error))) if is_missing(&error) => return Err(Ended::Missing),
                Ok(Some(Err(error))) => {
                    has_failed = true;
                    let needs_list = needs_list(&error);
                    self.tell(Told::Failed(error)).await?;
                    self.pause().await;
                    if needs_list {
                        return Err(Ended::Behind);
                    }
                }
            }
        }
    }

    async fn tell(&self, told: Told) -> Result<(), Ended> {
        let schema = self.schema;
        let told = self.messages.send(Message { schema, told }).await;
        told.map_err(|_| Ended::Unheard)
    }

    async fn pause(&mut self) {
        let pause = self.pauses.next();
        time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
    }
}

/// How long to wait before something is tried again.
struct Pauses(Duration);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = LONGEST_PAUSE.min(pause * 2);
        pause
    }

    fn restart(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

fn told(event: Event<DynamicObject>) -> Told {
    let object = |mut object: DynamicObject| {
        object.metadata.managed_fields = None;
        Box::new(object)
    };
    match event {
        Event::Init => Told::Restarted,
        Event::InitApply(it) | Event::Apply(it) => Told::Object(object(it)),
        Event::InitDone => Told::Complete,
        Event::Delete(it) => Told::Deleted(object(it)),
    }
}

fn is_missing(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    status.code == 404
}

/// Whether the watcher would go on as if nothing had been missed, or ask for the same that is gone again.
fn needs_list(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchFailed(kube::Error::SerdeError(_)) => true,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

pub(super) fn resource(schema: &Schema, api_version: &str) -> ApiResource {
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    ApiResource {
        group: schema.group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: schema.name.to_owned(),
        plural: schema.plural.to_owned(),
    }
}
