//! The directory of Kubernetes manifests that the lab's agents watch.

mod service;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

pub use service::Service;

use crate::{Error, Result};

/// The label that enrols a namespace or a pod.
const MESH_LABEL: &str = "ambit.dev/mesh";

/// A directory of ordinary Kubernetes YAML. A watcher never sees half a file: each is written
/// elsewhere on the same file system and moved in.
#[derive(Debug, Clone)]
pub struct Manifests {
    directory: PathBuf,
    staging: PathBuf,
}

impl Manifests {
    /// Makes an empty directory `manifests` below `parent`, and one for unfinished files.
    pub(crate) fn create(parent: &Path) -> Result<Manifests> {
        let manifests = Manifests {
            directory: parent.join("manifests"),
            staging: parent.join("staging"),
        };
        for directory in [&manifests.directory, &manifests.staging] {
            fs::create_dir(directory).map_err(Error::path("create", directory))?;
        }
        Ok(manifests)
    }

    /// The directory that agents read.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes or replaces a file, whatever its text: broken YAML too.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let unfinished = tempfile::NamedTempFile::new_in(&self.staging)
            .map_err(Error::path("create a file in", &self.staging))?;
        fs::write(unfinished.path(), text).map_err(Error::path("write", unfinished.path()))?;
        let target = self.directory.join(file);
        let move_in = |error: tempfile::PersistError| error.error;
        unfinished
            .persist(&target)
            .map_err(move_in)
            .map_err(Error::path("write", &target))?;
        Ok(())
    }

    /// Removes a file; one that isn't there is as good as removed.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.directory.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::path("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// A Kubernetes namespace. Each method but [`NamespaceManifest::strict`] writes its manifest,
/// `namespace-<name>.yaml`, anew.
#[derive(Debug)]
pub struct NamespaceManifest<'a> {
    manifests: &'a Manifests,
    name: String,
}

impl<'a> NamespaceManifest<'a> {
    pub(crate) fn new(manifests: &'a Manifests, name: &str) -> NamespaceManifest<'a> {
        NamespaceManifest {
            manifests,
            name: name.into(),
        }
    }

    /// A namespace whose pods are in the mesh.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn enrolled(&self) -> Result<()> {
        self.labelled(&[(MESH_LABEL, "enabled")])
    }

    /// A namespace that says nothing about the mesh.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn not_enrolled(&self) -> Result<()> {
        self.labelled(&[])
    }

    /// Demands mutual TLS of whoever connects to the namespace's pods: a PeerAuthentication, in
    /// `strict-<name>.yaml`. It leaves the namespace itself as it is.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn strict(&self) -> Result<()> {
        let policy = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": { "name": "default", "namespace": self.name },
            "spec": { "mtls": { "mode": "STRICT" } },
        });
        self.manifests
            .write(&format!("strict-{}.yaml", self.name), &yaml(&policy)?)
    }

    /// A namespace with exactly these labels.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn labelled(&self, labels: &[(&str, &str)]) -> Result<()> {
        self.write(labels, &[])
    }

    /// A namespace with exactly these labels and annotations.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": self.name, "labels": labels, "annotations": annotations },
        });
        self.manifests
            .write(&format!("namespace-{}.yaml", self.name), &yaml(&namespace)?)
    }
}

/// An object as YAML.
pub(crate) fn yaml(object: &Value) -> Result<String> {
    serde_norway::to_string(object).map_err(|error| Error::malformed("a manifest", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_removed_once_or_twice() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = Manifests::create(directory.path()).unwrap();
        let file = manifests.directory().join("x.yaml");
        manifests.write("x.yaml", "a long text").unwrap();
        manifests.write("x.yaml", "short").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "short");
        assert_eq!(fs::read_dir(&manifests.staging).unwrap().count(), 0);
        manifests.remove("x.yaml").unwrap();
        manifests.remove("x.yaml").unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_namespace_carries_its_labels() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = Manifests::create(directory.path()).unwrap();
        NamespaceManifest::new(&manifests, "shop")
            .enrolled()
            .unwrap();
        let text = fs::read_to_string(manifests.directory().join("namespace-shop.yaml")).unwrap();
        let read: Value = serde_norway::from_str(&text).unwrap();
        assert_eq!(read["metadata"]["labels"]["ambit.dev/mesh"], "enabled");
    }
}
