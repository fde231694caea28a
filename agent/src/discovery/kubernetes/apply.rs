//! From what watches tell to changes of the store.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kube::{api::DynamicObject, runtime::watcher};
use serde_json::Value;

use super::watch::{Message, Told};
use crate::discovery::{
    facts::ObjectKey,
    manifest,
    model::ObjectName,
    problems::{Origin, Problem, ProblemKind, Problems},
    reduce::Reducer,
    schema::{SCHEMAS, Schema},
    store::{Change, Store},
};

/// What is known of each kind, and what is wrong.
#[derive(Debug)]
pub(super) struct Applier {
    store: Arc<Store>,
    reducer: Reducer,
    problems: Problems,
    kinds: BTreeMap<&'static str, Followed>,
}

/// One kind.
#[derive(Debug, Default)]
struct Followed {
    /// It has been listed once, or isn't there to be listed.
    complete: bool,
    /// Every object that serves, or is broken.
    known: HashSet<ObjectName>,
    /// While it is listed: what was known before and hasn't been seen again.
    unseen: Option<HashSet<ObjectName>>,
    /// Why it can't be followed at present.
    failure: Option<String>,
    /// What is wrong with objects.
    wrong: BTreeMap<ObjectName, Vec<manifest::Error>>,
}

impl Applier {
    pub(super) fn new(trust_domain: Arc<str>, store: Arc<Store>) -> Self {
        let kinds = SCHEMAS.iter();
        let kinds = kinds.map(|schema| (schema.plural, <_>::default()));
        Self {
            store,
            reducer: Reducer::new(trust_domain),
            problems: Problems::default(),
            kinds: kinds.collect(),
        }
    }

    pub(super) fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// Whether every kind has been told of.
    pub(super) fn is_complete(&self) -> bool {
        self.kinds.values().all(|kind| kind.complete)
    }

    /// Applies all that was told as one update.
    pub(super) fn apply(&mut self, messages: Vec<Message>) {
        let mut changes = Vec::new();
        for Message { schema, told } in messages {
            let kind = self.kinds.entry(schema.plural).or_default();
            kind.take(schema, told, &mut self.reducer, &mut changes);
        }
        self.store.apply(changes);
        let problems = self.kinds.values().flat_map(Followed::problems);
        let snapshot = self.store.snapshot();
        let joined = snapshot.problems().map(|problem| Problem {
            origin: Origin::ApiServer,
            kind: problem.into(),
        });
        self.problems.replace(problems.chain(joined).collect());
    }
}

impl Followed {
    fn take(
        &mut self,
        schema: &'static Schema,
        told: Told,
        reducer: &mut Reducer,
        changes: &mut Vec<Change>,
    ) {
        match told {
            Told::Restarted => self.unseen = Some(self.known.clone()),
            Told::Object(object) => self.object(schema, *object, reducer, changes),
            Told::Deleted(object) => self.gone(schema, &name(schema, &object), changes),
            Told::Recovered => self.failure = None,
            Told::Complete => {
                for name in self.unseen.take().unwrap_or_default() {
                    self.gone(schema, &name, changes);
                }
                (self.complete, self.failure) = (true, None);
            }
            // An operator may remove a CRD, but a server that has just started may not know its own yet:
            // no policy goes for that.
            Told::Missing if schema.optional && self.known.is_empty() => {
                (self.complete, self.failure) = (true, None);
            }
            Told::Missing => {
                self.failure = Some(format!("the API server has no {} any more", schema.plural));
            }
            Told::Failed(error) => {
                let plural = schema.plural;
                let cure = cure(&error);
                self.failure = Some(format!("{plural} can't be followed: {error}{cure}"));
            }
        }
    }

    fn object(
        &mut self,
        schema: &'static Schema,
        object: DynamicObject,
        reducer: &mut Reducer,
        changes: &mut Vec<Change>,
    ) {
        let name = name(schema, &object);
        self.failure = None;
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(&name);
        }
        let read = manifest::read(fields(schema, object), reducer);
        changes.extend(
            read.objects
                .into_iter()
                .map(|parsed| Change::Upsert(parsed.object)),
        );
        if read.errors.is_empty() {
            self.wrong.remove(&name);
        } else {
            self.wrong.insert(name.clone(), read.errors);
        }
        self.known.insert(name);
    }

    fn gone(&mut self, schema: &Schema, name: &ObjectName, changes: &mut Vec<Change>) {
        self.known.remove(name);
        self.wrong.remove(name);
        changes.push(Change::Remove(ObjectKey {
            kind: schema.kind,
            name: name.clone(),
        }));
    }

    fn problems(&self) -> Vec<Problem> {
        let failure = self.failure.iter().map(|reason| ProblemKind::NotFollowed {
            reason: reason.clone(),
        });
        let wrong = self.wrong.values().flatten().cloned().map(Into::into);
        let problem = |kind| Problem {
            origin: Origin::ApiServer,
            kind,
        };
        failure.chain(wrong).map(problem).collect()
    }
}

fn name(schema: &Schema, object: &DynamicObject) -> ObjectName {
    let namespace = object.metadata.namespace.as_deref();
    ObjectName {
        namespace: namespace
            .filter(|_| schema.namespaced)
            .unwrap_or_default()
            .into(),
        name: object.metadata.name.as_deref().unwrap_or_default().into(),
    }
}

/// The object as a manifest would have it. Those of a list come without type.
fn fields(schema: &Schema, object: DynamicObject) -> serde_json::Map<String, Value> {
    let mut fields = match object.data {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    let types = object.types;
    let version = types.map(|types| types.api_version);
    let version = version.unwrap_or_else(|| schema.versions[0].to_owned());
    fields.insert("apiVersion".into(), version.into());
    fields.insert("kind".into(), schema.name.into());
    let metadata = serde_json::to_value(object.metadata).unwrap_or_default();
    fields.insert("metadata".into(), metadata);
    fields
}

/// What an operator can do about it.
fn cure(error: &watcher::Error) -> &'static str {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        _ => 0,
    };
    match code {
        401 => " (is the token of the service account mounted, and of this cluster?)",
        403 => " (its ClusterRole must allow to list and watch them)",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
