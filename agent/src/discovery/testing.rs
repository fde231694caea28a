//! Stores of made-up clusters.

use std::sync::Arc;

use super::{
    manifest::{self, Format},
    reduce::Reducer,
    store::{Change, Snapshot, Store},
};

/// What is known of these objects, none of which has a mistake.
pub(crate) fn snapshot(yaml: &str) -> Arc<Snapshot> {
    let parsed = manifest::parse(yaml, Format::Yaml, &mut Reducer::new("cluster.local")).unwrap();
    assert_eq!(parsed.errors, []);
    let store = Store::default();
    let objects = parsed.objects.into_iter();
    store.apply(objects.map(|parsed| Change::Upsert(parsed.object)));
    store.snapshot()
}
