//! Reads manifest files and hands the store what is different from before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Error, watch::manifest_name};
use crate::discovery::{
    facts::ObjectKey,
    manifest::{self, Format, Manifest},
    problems::{Origin, Problem, ProblemKind, Problems},
    reduce::Reducer,
    store::{Change, Store},
};

/// The largest file that is read, in bytes: some fifty thousand pods.
const LARGEST_FILE: u64 = 64 << 20;

/// What is to be read.
#[derive(Debug)]
pub(super) enum Scope {
    /// These files.
    Files(BTreeSet<Arc<str>>),
    /// Every file there is, and every one there was.
    Everything,
}

/// What each file gave, and who serves which object.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) problems: Problems,
    path: PathBuf,
    reducer: Reducer,
    store: Arc<Store>,
    files: BTreeMap<Arc<str>, File>,
    owners: HashMap<ObjectKey, Arc<str>>,
    /// Objects that are in further files, which would serve them if the owner didn't.
    duplicates: BTreeMap<ObjectKey, BTreeSet<Arc<str>>>,
    unread: Unread,
}

/// What couldn't be read for a reason that passes by itself.
#[derive(Debug, Default)]
struct Unread {
    directory: bool,
    files: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct File {
    /// Hash of the text that was read last.
    content: u64,
    /// Objects that this file serves, each with a hash of how it was written.
    objects: HashMap<ObjectKey, u64>,
    problems: Vec<ProblemKind>,
}

/// One run through files: what is left to read, and what came of it so far.
struct Run {
    files: BTreeSet<Arc<str>>,
    /// To be parsed although they haven't changed, as an object fell to them.
    heirs: BTreeSet<Arc<str>>,
    changes: Vec<Change>,
}

impl Loader {
    pub(super) fn new(path: PathBuf, trust_domain: Arc<str>, store: Arc<Store>) -> Self {
        Self {
            problems: Problems::default(),
            path,
            reducer: Reducer::new(trust_domain),
            store,
            files: BTreeMap::new(),
            owners: HashMap::new(),
            duplicates: BTreeMap::new(),
            unread: Unread::default(),
        }
    }

    /// Whether something is to be tried again.
    pub(super) fn is_behind(&self) -> bool {
        self.unread.directory || !self.unread.files.is_empty()
    }

    /// Reads, with what couldn't be read before, and applies all that is different as one update.
    pub(super) fn load(&mut self, scope: Scope) -> Result<(), Error> {
        let unread = std::mem::take(&mut self.unread);
        let mut files = match scope {
            Scope::Files(files) if !unread.directory => files,
            Scope::Files(_) | Scope::Everything => {
                let listed = self.list();
                self.unread.directory = listed.is_err();
                let known = self.files.keys().cloned();
                listed?.into_iter().chain(known).collect()
            }
        };
        files.extend(unread.files);
        let mut run = Run {
            files,
            heirs: BTreeSet::new(),
            changes: Vec::new(),
        };
        let mut outcome = Ok(());
        while let Some(name) = run.files.pop_first() {
            let path = self.path.join(&*name);
            match read(&path) {
                Ok(text) => self.text(&name, &text, &mut run),
                // Without the directory nobody has deleted the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => match self.list() {
                    Ok(_) => self.gone(&name, &mut run),
                    Err(error) => {
                        self.unread.directory = true;
                        outcome = Err(error);
                        break;
                    }
                },
                Err(error) => {
                    if passes(&error) {
                        self.unread.files.insert(name.clone());
                    }
                    let file = self.files.entry(name).or_default();
                    file.content = 0;
                    file.problems = vec![ProblemKind::Unreadable {
                        reason: error.to_string(),
                    }];
                }
            }
        }
        self.store.apply(run.changes);
        self.publish_problems(None);
        outcome
    }

    /// Notes that the directory can't be followed at present. All that was in it serves on.
    pub(super) fn keep_all(&self, error: &Error) {
        let kind = ProblemKind::NotFollowed {
            reason: error.to_string(),
        };
        self.publish_problems(Some(Problem {
            origin: Origin::File(self.path.clone()),
            kind,
        }));
    }

    fn list(&self) -> Result<BTreeSet<Arc<str>>, Error> {
        let unreadable = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            names.extend(manifest_name(&entry.map_err(unreadable)?.file_name()));
        }
        Ok(names)
    }

    fn text(&mut self, name: &Arc<str>, text: &str, run: &mut Run) {
        let content = hash(text);
        let is_heir = run.heirs.remove(name);
        let known = self
            .files
            .get(name)
            .is_some_and(|file| file.content == content);
        if known && !is_heir {
            return;
        }
        let format = if name.ends_with(".json") {
            Format::Json
        } else {
            Format::Yaml
        };
        let problems = match manifest::parse(text, format, &mut self.reducer) {
            Ok(manifest) => self.manifest(name, manifest, run),
            Err(error) => vec![error.into()],
        };
        let file = self.files.entry(Arc::clone(name)).or_default();
        (file.content, file.problems) = (content, problems);
    }

    /// Replaces what the file gave before. An object that is broken now stays as it was; if one is
    /// so broken that it has no name, whatever is missing may be that one, and stays too.
    fn manifest(&mut self, name: &Arc<str>, manifest: Manifest, run: &mut Run) -> Vec<ProblemKind> {
        let mut problems: Vec<ProblemKind> = manifest.errors.into_iter().map(Into::into).collect();
        let keep_missing = manifest.broken.contains(&None);
        let present: HashSet<ObjectKey> = manifest
            .broken
            .into_iter()
            .flatten()
            .chain(manifest.objects.iter().map(|parsed| parsed.key.clone()))
            .collect();
        self.withdraw_claims(name);
        let mut served = self.files.remove(name).unwrap_or_default().objects;
        if !keep_missing {
            let gone: Vec<_> = served
                .keys()
                .filter(|key| !present.contains(*key))
                .cloned()
                .collect();
            for key in gone {
                served.remove(&key);
                self.release(key, run);
            }
        }
        let mut seen = HashSet::new();
        for parsed in manifest.objects {
            let owner = self.owners.get(&parsed.key).filter(|owner| *owner != name);
            let first = if seen.insert(parsed.key.clone()) {
                owner
            } else {
                Some(name)
            };
            if let Some(first) = first {
                let (object, first) = (parsed.key.clone(), first.to_string());
                if owner.is_some() {
                    self.duplicates
                        .entry(parsed.key)
                        .or_default()
                        .insert(Arc::clone(name));
                }
                problems.push(ProblemKind::Duplicate { object, first });
                continue;
            }
            self.owners.insert(parsed.key.clone(), Arc::clone(name));
            if served.insert(parsed.key, parsed.hash) != Some(parsed.hash) {
                run.changes.push(Change::Upsert(parsed.object));
            }
        }
        self.files.insert(
            Arc::clone(name),
            File {
                objects: served,
                ..File::default()
            },
        );
        problems
    }

    fn gone(&mut self, name: &Arc<str>, run: &mut Run) {
        self.withdraw_claims(name);
        for key in self
            .files
            .remove(name)
            .unwrap_or_default()
            .objects
            .into_keys()
        {
            self.release(key, run);
        }
    }

    /// Takes an object away from the file that serves it; another that has it too takes over.
    fn release(&mut self, key: ObjectKey, run: &mut Run) {
        self.owners.remove(&key);
        if let Some(heir) = self.duplicates.get(&key).and_then(|files| files.first()) {
            run.heirs.insert(Arc::clone(heir));
            run.files.insert(Arc::clone(heir));
        }
        run.changes.push(Change::Remove(key));
    }

    /// Forgets which objects of other files this one has too.
    fn withdraw_claims(&mut self, name: &Arc<str>) {
        self.duplicates.retain(|_, files| {
            files.remove(name);
            !files.is_empty()
        });
    }

    fn publish_problems(&self, directory: Option<Problem>) {
        let of_file = |(name, file): (&Arc<str>, &File)| {
            let path = self.path.join(&**name);
            let problems = file.problems.clone().into_iter();
            problems
                .map(move |kind| Problem {
                    origin: Origin::File(path.clone()),
                    kind,
                })
                .collect::<Vec<_>>()
        };
        let problems = self.files.iter().flat_map(of_file);
        let snapshot = self.store.snapshot();
        let joined = snapshot.problems().map(|problem| {
            let file = self.owners.get(&problem.object);
            Problem {
                origin: Origin::File(file.map_or(self.path.clone(), |it| self.path.join(&**it))),
                kind: problem.into(),
            }
        });
        let all = directory.into_iter().chain(problems).chain(joined);
        self.problems.replace(all.collect());
    }
}

/// Whether a file may be readable the next time, without a change of the file.
fn passes(error: &io::Error) -> bool {
    let system = error.raw_os_error();
    system.is_some_and(|code| [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO].contains(&code))
}

/// Reads a whole file. Opens only what is a file: a FIFO would never answer.
fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    let read = fs::File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > LARGEST_FILE) {
        let limit = LARGEST_FILE >> 20;
        return Err(io::Error::other(format!(
            "it is larger than {limit} MiB; split it"
        )));
    }
    Ok(text)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
