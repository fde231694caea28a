//! The state directory: `roots.json` (records and certificates), one key file for each root that
//! signs or will, and `trust-bundle.pem` for agents.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{
    Error, Settings,
    root::{self, CLOCK_SKEW, Signer},
    rotation::{Root, Stage},
};
use crate::identity::{
    files::{self, FileError},
    x509,
};

/// A root and its certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) root: Root,
    /// PEM.
    certificate: String,
}

/// The records in memory, and where they are kept.
pub(super) struct RootStore {
    directory: PathBuf,
    records: Vec<Record>,
    /// Held for as long as the authority lives.
    _lock: File,
}

impl RootStore {
    /// Opens or makes the directory. Makes no root.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        files::private_directory(directory)?;
        let lock = lock(&directory.join("lock"))?;
        let path = directory.join("roots.json");
        let records = if path.exists() {
            let text = files::read_private(&path, files::NOT_OWNER)?;
            serde_json::from_str(&text).map_err(|error| damaged(&path, error.to_string()))?
        } else {
            Vec::new()
        };
        let store = Self {
            directory: directory.to_owned(),
            records,
            _lock: lock,
        };
        store.remove_unused_keys();
        Ok(store)
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &Root> {
        self.records.iter().map(|record| &record.root)
    }

    pub(super) fn records_mut(&mut self) -> &mut Vec<Record> {
        &mut self.records
    }

    pub(super) fn clone_records(&self) -> Vec<Record> {
        self.records.clone()
    }

    /// Lets a pure function change the roots.
    pub(super) fn change_roots(&mut self, change: impl FnOnce(&mut [Root])) {
        let mut roots: Vec<Root> = self.roots().cloned().collect();
        change(&mut roots);
        for (record, root) in self.records.iter_mut().zip(roots) {
            record.root = root;
        }
    }

    /// Remembers that the active root will sign certificates of this life.
    pub(super) fn extend_longest(&mut self, ttl: Duration) {
        self.change_roots(|roots| {
            for root in roots.iter_mut().filter(|root| root.stage == Stage::Active) {
                root.longest_certificate = root.longest_certificate.max(ttl);
            }
        });
    }

    /// Makes a root and writes its key; the record is the caller's to add and save.
    pub(super) fn create(
        &self,
        settings: &Settings,
        stage: Stage,
        now: SystemTime,
    ) -> Result<Record, Error> {
        let id = format!("{:016x}", rand::random::<u64>());
        let not_after = whole_seconds(now + settings.root_ttl);
        let made = root::create(&id, &settings.trust_domain, now - CLOCK_SKEW, not_after)?;
        files::write_atomically(&self.key_path(&id), &made.key, 0o600)?;
        Ok(Record {
            root: Root {
                id,
                not_after,
                stage,
                longest_certificate: settings.certificate_ttl,
            },
            certificate: made.certificate,
        })
    }

    /// Writes records and bundle, if they differ from what is there: a start needs no room on a disk. A crash in
    /// between is repaired by the next start.
    pub(super) fn save(&self) -> Result<(), Error> {
        let path = self.directory.join("roots.json");
        let text = serde_json::to_string_pretty(&self.records)
            .map_err(|error| damaged(&path, error.to_string()))?;
        write_if_changed(&path, &text, 0o600)?;
        let bundle = self.bundle().concat();
        let path = self.directory.join("trust-bundle.pem");
        write_if_changed(&path, &bundle, 0o644)
    }

    /// PEM of every root, the active one first.
    pub(super) fn bundle(&self) -> Vec<String> {
        let is_active = |record: &&Record| record.root.stage == Stage::Active;
        let active = self.records.iter().filter(is_active);
        let others = self.records.iter().filter(|record| !is_active(record));
        active
            .chain(others)
            .map(|record| record.certificate.clone())
            .collect()
    }

    /// The active root, ready to sign.
    pub(super) fn signer(&self) -> Result<(&Record, Signer), Error> {
        let records = self.directory.join("roots.json");
        let active = self
            .records
            .iter()
            .find(|record| record.root.stage == Stage::Active)
            .ok_or_else(|| damaged(&records, "no root is active".to_owned()))?;
        let certificate = CertificateDer::from_pem_slice(active.certificate.as_bytes())
            .map_err(|error| damaged(&records, error.to_string()))?;
        let facts =
            x509::facts(&certificate).map_err(|error| damaged(&records, error.to_string()))?;
        let path = self.key_path(&active.root.id);
        let key = zeroize::Zeroizing::new(files::read_private(&path, files::NOT_OWNER)?);
        let signer =
            Signer::load(&certificate, &key).map_err(|error| damaged(&path, error.to_string()))?;
        if signer.public_key() != facts.public_key {
            return Err(damaged(
                &path,
                "it isn't the key of its root's certificate".into(),
            ));
        }
        Ok((active, signer))
    }

    /// Removes keys that will never sign again: of retired roots, and of a root that a crash
    /// left without record.
    pub(super) fn remove_unused_keys(&self) {
        let used: Vec<PathBuf> = self
            .roots()
            .filter(|root| !matches!(root.stage, Stage::Retired { .. }))
            .map(|root| self.key_path(&root.id))
            .collect();
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            let is_key = path.extension().is_some_and(|extension| extension == "key");
            if is_key
                && !used.contains(&path)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a retired root's key");
            }
        }
    }

    fn key_path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("root-{id}.key"))
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(FileError::io("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(FileError::io("lock", path)(error).into()),
    }
}

fn write_if_changed(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    Ok(files::write_atomically(path, text, mode)?)
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        reason,
    }
}

/// Certificates count whole seconds; the record must not promise more.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}
