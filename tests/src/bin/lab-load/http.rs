//! As much of HTTP/1.1 as a load needs: requests without a body, answers with `Content-Length`.

#[cfg(test)]
mod tests;

use httparse::{EMPTY_HEADER, Header, Status};

/// How many headers a message may have.
const HEADERS: usize = 64;
/// How long a message's head may be, in bytes.
const HEAD: usize = 32 * 1024;

/// What came isn't what was awaited.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not HTTP.
    #[error("this isn't HTTP/1.1: {0}")]
    Syntax(#[from] httparse::Error),
    /// The head doesn't end.
    #[error("the head has more than {HEAD} bytes")]
    TooLong,
    /// The answer tells no length.
    #[error("the answer has no Content-Length (chunked answers aren't read)")]
    NoLength,
    /// The answer isn't one of success.
    #[error("the answer has status {0}")]
    Status(u16),
    /// Bytes came that belong to no answer.
    #[error("{0} bytes came after the answer")]
    Surplus(usize),
}

/// An answer that is being read.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What has come of a head that isn't whole.
    head: Vec<u8>,
    /// How many bytes have come, head included.
    bytes: u64,
    /// How many bytes are to come, once the head is known.
    left: Option<u64>,
}

impl Answer {
    /// Takes what came; the answer's length in bytes, head included, when it is whole, after which
    /// the next one may come.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<u64>, Malformed> {
        self.bytes += bytes.len() as u64;
        let left = match self.left {
            Some(left) => left,
            None if self.head.is_empty() => match answer_head(bytes)? {
                Some(whole) => whole,
                None => {
                    self.head.extend_from_slice(bytes);
                    return Ok(None);
                }
            },
            None => {
                self.head.extend_from_slice(bytes);
                match answer_head(&self.head)? {
                    // Counted from the answer's beginning, of which `bytes` is only the end.
                    Some(whole) => whole - (self.head.len() - bytes.len()) as u64,
                    None => return Ok(None),
                }
            }
        };
        let came = bytes.len() as u64;
        if came < left {
            self.left = Some(left - came);
            return Ok(None);
        }
        let whole = self.bytes;
        *self = Self::default();
        match usize::try_from(came - left) {
            Ok(0) => Ok(Some(whole)),
            surplus => Err(Malformed::Surplus(surplus.unwrap_or(usize::MAX))),
        }
    }

    /// Forgets what has come.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// How long the answer is that begins so, in bytes, if its head is whole.
fn answer_head(bytes: &[u8]) -> Result<Option<u64>, Malformed> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let Status::Complete(head) = answer.parse(bytes)? else {
        return partial(bytes);
    };
    match answer.code {
        Some(200..=299) => {}
        other => return Err(Malformed::Status(other.unwrap_or_default())),
    }
    let length = value(answer.headers, "content-length").ok_or(Malformed::NoLength)?;
    let length: Option<u64> = str::from_utf8(length)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let length = length.ok_or(Malformed::NoLength)?;
    Ok(Some(length.saturating_add(head as u64)))
}

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Its length in bytes.
    pub(crate) head: usize,
    pub(crate) path: &'a str,
    /// Whether the connection is to be closed after the answer.
    pub(crate) close: bool,
}

/// The first request of what came, if its head is whole.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let Status::Complete(head) = request.parse(bytes)? else {
        return partial(bytes);
    };
    let close = match value(request.headers, "connection") {
        Some(value) => value.eq_ignore_ascii_case(b"close"),
        None => request.version == Some(0),
    };
    Ok(Some(Request {
        head,
        path: request.path.unwrap_or_default(),
        close,
    }))
}

fn partial<T>(bytes: &[u8]) -> Result<Option<T>, Malformed> {
    if bytes.len() > HEAD {
        return Err(Malformed::TooLong);
    }
    Ok(None)
}

fn value<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let header = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(header.value)
}
