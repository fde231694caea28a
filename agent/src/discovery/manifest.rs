//! Manifests, as one would give them to kubectl, to checked objects.
//!
//! One bad object doesn't spoil the others of its file; only text that isn't YAML at all does.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    facts::{Kind, Object, ObjectKey},
    model::ObjectName,
    reduce::{
        FieldError, Gateway, GrpcMatch, HttpMatch, Reducer, ReferenceGrant, Route, TrafficPolicy,
    },
    schema::Schema,
};
use crate::policy;

/// What a manifest file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Any number of YAML documents.
    Yaml,
    /// One JSON value. YAML would take most of it, but not tabs.
    Json,
}

/// The objects of one file.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Those that can be used, in the order of the file.
    pub objects: Vec<Parsed>,
    /// Those that can't; `None` where not even the name could be read.
    pub broken: Vec<Option<ObjectKey>>,
    /// What is wrong, with broken objects and with usable ones.
    pub errors: Vec<Error>,
    /// How many objects are of kinds that change nothing here.
    pub ignored: usize,
}

/// A usable object.
#[derive(Debug)]
pub struct Parsed {
    /// Its name.
    pub key: ObjectKey,
    /// Hash of the object as it was written: equal means unchanged.
    pub hash: u64,
    /// What is kept of it.
    pub object: Object,
}

/// What is wrong with a manifest. The file's name is said by whoever read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text can't be read at all.
    #[error("not a manifest: {reason}")]
    Syntax {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A document without the fields that every object has.
    #[error("object {position} of the file: {error}")]
    Unnamed {
        /// Counted from 1.
        position: usize,
        /// The field that is missing or wrong.
        error: FieldError,
    },
    /// A field of an object.
    #[error("{object}: {error}")]
    Field {
        /// Kind, namespace and name.
        object: ObjectKey,
        /// The field.
        error: FieldError,
    },
    /// A policy that doesn't say what it must.
    #[error(transparent)]
    Policy(#[from] policy::parse::Error),
    /// An API version from before or after the one that is understood.
    #[error("{object}: apiVersion \"{found}\" is not understood; write \"{supported}\"")]
    Version {
        /// Kind, namespace and name.
        object: ObjectKey,
        /// What the manifest says.
        found: String,
        /// What it may say.
        supported: &'static str,
    },
}

impl Error {
    /// Kind, namespace and name of the object; `None` where the error is about no single one, or
    /// its name couldn't be read.
    #[must_use]
    pub fn object(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } | Self::Unnamed { .. } => None,
            Self::Field { object, .. } | Self::Version { object, .. } => Some(object.to_string()),
            Self::Policy(error) => Some(error.object()),
        }
    }

    /// The same, where its kind is one that is understood.
    #[must_use]
    pub fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Syntax { .. } | Self::Unnamed { .. } => None,
            Self::Field { object, .. } | Self::Version { object, .. } => Some(object.clone()),
            Self::Policy(error) => {
                let (kind, namespace, name) = error.name()?;
                Some(ObjectKey {
                    kind: Schema::named(kind)?.kind,
                    name: ObjectName {
                        namespace: namespace.into(),
                        name: name.into(),
                    },
                })
            }
        }
    }

    /// Path of the field; `None` where the error is about no single one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Syntax { .. } => None,
            Self::Unnamed { error, .. } | Self::Field { error, .. } => Some(&error.field),
            Self::Policy(error) => Some(error.field()),
            Self::Version { .. } => Some("apiVersion"),
        }
    }
}

/// Reads a file's text.
///
/// # Errors
/// [`Error::Syntax`] if it can't be read at all; whatever concerns single objects is in
/// [`Manifest::errors`].
pub fn parse(text: &str, format: Format, reducer: &mut Reducer) -> Result<Manifest, Error> {
    let mut reader = Reader::new(reducer);
    match format {
        Format::Json if text.trim().is_empty() => {}
        Format::Json => {
            let value = serde_json::from_str(text);
            reader.document(value.map_err(|error| Error::Syntax {
                reason: error.to_string(),
            })?);
        }
        Format::Yaml => {
            for document in serde_norway::Deserializer::from_str(text) {
                let value = Value::deserialize(document);
                reader.document(value.map_err(|error| Error::Syntax {
                    reason: error.to_string(),
                })?);
            }
        }
    }
    Ok(reader.manifest)
}

/// Reads one object.
#[must_use]
pub fn read(object: Map<String, Value>, reducer: &mut Reducer) -> Manifest {
    let mut reader = Reader::new(reducer);
    reader.object(object);
    reader.manifest
}

struct Reader<'a> {
    reducer: &'a mut Reducer,
    manifest: Manifest,
    position: usize,
}

impl<'a> Reader<'a> {
    fn new(reducer: &'a mut Reducer) -> Self {
        Self {
            reducer,
            manifest: Manifest::default(),
            position: 0,
        }
    }

    /// One object, or a list of them (`kubectl get -o yaml` writes those); empty documents are
    /// what stands between two `---`.
    fn document(&mut self, value: Value) {
        let mut fields = match value {
            Value::Null => return,
            Value::Object(fields) => fields,
            _ => return self.unnamed(FieldError::new("document", "is not an object")),
        };
        let list_of = text(&fields, "kind").and_then(|kind| kind.strip_suffix("List"));
        let (Some(list_of), true) = (list_of.map(str::to_owned), fields.contains_key("items"))
        else {
            return self.object(fields);
        };
        let version = fields.remove("apiVersion");
        match fields.remove("items") {
            Some(Value::Array(items)) => {
                for item in items {
                    self.document(with_kind(item, &list_of, version.as_ref()));
                }
            }
            Some(Value::Null) | None => {}
            Some(_) => self.unnamed(FieldError::new("items", "is not a list")),
        }
    }

    fn object(&mut self, mut fields: Map<String, Value>) {
        self.position += 1;
        let Some(api_version) = text(&fields, "apiVersion").map(str::to_owned) else {
            return self.unnamed(FieldError::new("apiVersion", "is missing or not text"));
        };
        let Some(kind) = text(&fields, "kind") else {
            return self.unnamed(FieldError::new("kind", "is missing or not text"));
        };
        let (group, _) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let Some(schema) = Schema::find(group, kind) else {
            self.manifest.ignored += 1;
            return;
        };
        let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else {
            return self.unnamed(FieldError::new("metadata", "is missing or not an object"));
        };
        if schema.namespaced && !metadata.contains_key("namespace") {
            metadata.insert("namespace".into(), "default".into());
        }
        let namespace = if schema.namespaced {
            text(metadata, "namespace")
        } else {
            Some("")
        };
        let (Some(namespace), Some(name)) = (namespace, text(metadata, "name")) else {
            let field = if namespace.is_none() {
                "metadata.namespace"
            } else {
                "metadata.name"
            };
            return self.unnamed(FieldError::new(field, "is missing or not text"));
        };
        let name = ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        };
        let key = ObjectKey {
            kind: schema.kind,
            name,
        };
        if !schema.versions.contains(&api_version.as_str()) {
            let supported = schema.versions[0];
            let error = Error::Version {
                object: key.clone(),
                found: api_version,
                supported,
            };
            return self.broken(key, error);
        }
        let value = Value::Object(fields);
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let mut issues = Vec::new();
        match check(&key, value, self.reducer, &mut issues) {
            Ok(object) => {
                self.manifest.objects.push(Parsed {
                    key: key.clone(),
                    hash: hasher.finish(),
                    object,
                });
            }
            Err(error) => self.broken(key.clone(), error),
        }
        let errors = issues.into_iter().map(|error| Error::Field {
            object: key.clone(),
            error,
        });
        self.manifest.errors.extend(errors);
    }

    fn unnamed(&mut self, error: FieldError) {
        let position = self.position.max(1);
        self.manifest.broken.push(None);
        self.manifest
            .errors
            .push(Error::Unnamed { position, error });
    }

    fn broken(&mut self, key: ObjectKey, error: Error) {
        self.manifest.broken.push(Some(key));
        self.manifest.errors.push(error);
    }
}

/// Objects of a typed list come without kind and version of their own.
fn with_kind(mut item: Value, kind: &str, version: Option<&Value>) -> Value {
    if let (Value::Object(fields), false) = (&mut item, kind.is_empty()) {
        fields.entry("kind").or_insert_with(|| kind.into());
        if let Some(version) = version {
            fields
                .entry("apiVersion")
                .or_insert_with(|| version.clone());
        }
    }
    item
}

fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    fields.get(key).and_then(Value::as_str)
}

fn check(
    key: &ObjectKey,
    value: Value,
    reducer: &mut Reducer,
    issues: &mut Vec<FieldError>,
) -> Result<Object, Error> {
    let field = |error| Error::Field {
        object: key.clone(),
        error,
    };
    Ok(match key.kind {
        Kind::Namespace => {
            let namespace: Namespace = typed(value).map_err(field)?;
            Object::Namespace(reducer.namespace(&namespace, issues).map_err(field)?)
        }
        Kind::Node => {
            let node: Node = typed(value).map_err(field)?;
            Object::Node(reducer.node(&node, issues).map_err(field)?)
        }
        Kind::Pod => {
            let pod: Pod = typed(value).map_err(field)?;
            Object::Pod(Box::new(reducer.pod(pod, issues).map_err(field)?))
        }
        Kind::Service => {
            let service: Service = typed(value).map_err(field)?;
            Object::Service(reducer.service(service, issues).map_err(field)?)
        }
        Kind::EndpointSlice => {
            let slice: EndpointSlice = typed(value).map_err(field)?;
            Object::EndpointSlice(reducer.endpoint_slice(&slice).map_err(field)?)
        }
        Kind::Gateway => {
            let gateway: Gateway = typed(value).map_err(field)?;
            Object::Gateway(reducer.gateway(&gateway, issues).map_err(field)?)
        }
        Kind::HTTPRoute => {
            let route: Route<HttpMatch> = typed(value).map_err(field)?;
            Object::Route(Box::new(reducer.route(&route, issues).map_err(field)?))
        }
        Kind::GRPCRoute => {
            let route: Route<GrpcMatch> = typed(value).map_err(field)?;
            Object::Route(Box::new(reducer.route(&route, issues).map_err(field)?))
        }
        Kind::ReferenceGrant => {
            let grant: ReferenceGrant = typed(value).map_err(field)?;
            Object::ReferenceGrant(reducer.reference_grant(&grant).map_err(field)?)
        }
        Kind::TrafficPolicy => {
            let policy: TrafficPolicy = typed(value).map_err(field)?;
            Object::TrafficPolicy(reducer.traffic_policy(&policy).map_err(field)?)
        }
        Kind::AuthorizationPolicy => {
            Object::AuthorizationPolicy(policy::parse::authorization_policy(value)?)
        }
        Kind::PeerAuthentication => {
            Object::PeerAuthentication(policy::parse::peer_authentication(value)?)
        }
        Kind::RequestAuthentication => {
            Object::RequestAuthentication(policy::parse::request_authentication(value)?)
        }
    })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        FieldError::new(field, error.into_inner().to_string())
    })
}

#[cfg(test)]
mod tests;
