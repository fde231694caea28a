//! Who calls: a node, proven by a token.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::{constant_time, digest};
use futures::future::BoxFuture;

use crate::{
    discovery::model::ObjectName,
    identity::files::{self, FileError},
};

/// Who calls, authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The node that it runs on.
    pub node: String,
    /// What it may ask for.
    pub role: CallerRole,
}

/// What a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerRole {
    /// The agent of its node: any identity that is there.
    Agent,
    /// The waypoint of a Gateway: its own identity.
    Waypoint(ObjectName),
}

/// Why a caller isn't known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// The token is wrong.
    #[error("{0}")]
    Refused(String),
    /// The token couldn't be checked.
    #[error("cannot check the token now: {0}")]
    Unavailable(String),
}

/// Turns a token into a node.
pub trait CallerAuthenticator: Send + Sync + 'static {
    /// Checks a bearer token.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Caller, AuthenticationError>>;
}

/// Tokens in a file, read again when it changes: `token,node` lines, as Kubernetes' static token
/// file has them.
///
/// Instead of the token itself a line may have `sha256:` and the token's digest in hexadecimal.
/// Empty lines and lines that begin with `#` are skipped.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    version: Version,
    tokens: Arc<[Token]>,
}

/// Tells a file from what it was: time, size and inode, since a rename keeps the time.
type Version = (SystemTime, u64, u64);

struct Token {
    digest: [u8; 32],
    node: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.node)
    }
}

/// Why a token file isn't used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// Unreadable, or readable by the world.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is wrong. The line itself isn't shown: it may hold a token.
    #[error("{path}, line {line}: {reason}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl TokenFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        Ok(Self {
            path: path.to_owned(),
            read: Mutex::new(Read::new(path)?),
        })
    }

    /// The tokens of the moment; the last good ones if the file has become unusable.
    fn tokens(&self) -> Arc<[Token]> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let current = version(&self.path);
        if !current
            .as_ref()
            .is_ok_and(|version| *version == read.version)
        {
            match Read::new(&self.path) {
                Ok(new) => *read = new,
                Err(error) => {
                    tracing::warn!(%error, "the token file is unusable, the tokens stay as they were");
                    // Once for each version of a bad file.
                    if let Ok(version) = current {
                        read.version = version;
                    }
                }
            }
        }
        Arc::clone(&read.tokens)
    }
}

impl CallerAuthenticator for TokenFile {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Caller, AuthenticationError>> {
        Box::pin(async move {
            find(&self.tokens(), token).ok_or_else(|| {
                AuthenticationError::Refused("the token is not in the token file".to_owned())
            })
        })
    }
}

impl Read {
    fn new(path: &Path) -> Result<Self, TokenFileError> {
        // The version first: a change after it is seen by the next call.
        let version = version(path)?;
        let text = zeroize::Zeroizing::new(files::read_private(path, files::WORLD)?);
        Ok(Self {
            version,
            tokens: parse(&text).map_err(|(line, reason)| TokenFileError::Line {
                path: path.to_owned(),
                line,
                reason,
            })?,
        })
    }
}

/// Compares digests of all tokens in constant time: neither a token nor its place shows.
fn find(tokens: &[Token], presented: &str) -> Option<Caller> {
    let presented = sha256(presented);
    let mut found = None;
    for token in tokens {
        if constant_time::verify_slices_are_equal(&token.digest, &presented).is_ok() {
            found = Some(token);
        }
    }
    found.map(|token| Caller {
        node: token.node.clone(),
        role: CallerRole::Agent,
    })
}

fn parse(text: &str) -> Result<Arc<[Token]>, (usize, &'static str)> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason| (index + 1, reason);
        let mut fields = line.split(',').map(str::trim);
        let (token, node) = match (fields.next(), fields.next()) {
            (Some(token), Some(node)) if !token.is_empty() && !node.is_empty() => (token, node),
            _ => return Err(wrong("not of the form token,node")),
        };
        let digest = match token.strip_prefix("sha256:") {
            Some(hex) => digest_of_hex(hex).ok_or(wrong("sha256: wants 64 hexadecimal digits"))?,
            None => sha256(token),
        };
        tokens.push(Token {
            digest,
            node: node.to_owned(),
        });
    }
    Ok(tokens.into())
}

fn sha256(text: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

fn digest_of_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn version(path: &Path) -> Result<Version, FileError> {
    use std::os::unix::fs::MetadataExt;
    let inspect = |path: &Path| -> io::Result<Version> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.modified()?, metadata.len(), metadata.ino()))
    };
    inspect(path).map_err(FileError::io("inspect", path))
}

#[cfg(test)]
mod tests;
