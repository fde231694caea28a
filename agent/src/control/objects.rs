//! One object of a namespace, of which only one field matters to us.

use std::fmt::Debug;

use kube::{
    Api, Resource,
    api::{ObjectMeta, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

/// How often a change is tried again that somebody else was faster with.
const TRIES: usize = 5;

/// Metadata of an object of ours.
pub(super) fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some([("app.kubernetes.io/part-of", "ambit")].map(own).into()),
        ..ObjectMeta::default()
    }
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// The object of that name. If there is none, `make` makes it; whoever is first to do so wins, and every
/// replica has the same.
///
/// # Errors
/// The API server's.
pub(super) async fn find_or_create<K, E>(
    api: &Api<K>,
    name: &str,
    make: impl Fn() -> Result<K, E>,
) -> Result<K, E>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
    E: From<kube::Error>,
{
    loop {
        if let Some(found) = api.get_opt(name).await? {
            return Ok(found);
        }
        match api.create(&PostParams::default(), &make()?).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => return Ok(created?),
        }
    }
}

/// Has `change` change the object, if it says that there is something to change. What others have put into
/// it stays.
///
/// # Errors
/// The API server's; the last conflict if others are faster again and again.
pub(super) async fn update<K>(
    api: &Api<K>,
    mut object: K,
    change: impl Fn(&mut K) -> bool,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let mut tries = 0;
    while change(&mut object) {
        match api.replace(&name, &PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {
                tries += 1;
                object = api.get(&name).await?;
            }
            replaced => return replaced.map(drop),
        }
    }
    Ok(())
}
