//! Paths of requests, in the one form that policies and routes are matched against and that is sent on.
//!
//! Two spellings that servers take for the same path must not meet different policies. So `.` and `..`
//! are resolved, `//` is merged, escapes of characters that need none are decoded and the others written
//! in upper case (RFC 3986, 6.2.2). What servers are known to disagree about is refused: `%2F`, `%5C` and
//! `\`, which some take for `/`; `..;x`, which some take for `..`; NUL and other control characters.
//! Upper case and parameters (`/a;x=1`) stay as they are: a server that ignores either needs policies
//! that allow what it should serve, not policies that deny what it shouldn't.

use std::borrow::Cow;

/// Why a path can't be put into that form. The answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It isn't a path.
    #[error("the path doesn't begin with /")]
    NotAbsolute,
    /// `%` without two hexadecimal digits behind it.
    #[error("the path has a % that isn't followed by two hexadecimal digits")]
    BadEscape,
    /// `%2F`, `%5C` or `\`.
    #[error("the path has an escaped slash or a backslash, which servers read differently")]
    HiddenSlash,
    /// A control character, raw or NUL in an escape.
    #[error("the path has a control character")]
    ControlCharacter,
    /// `?` or `#`.
    #[error("the path has a ? or #, which end it")]
    NotOnlyPath,
    /// `.` or `..` with parameters.
    #[error("the path has a . or .. with parameters, which servers read differently")]
    DotParameters,
}

/// Puts a path, without its query, into that form. `*`, which OPTIONS has, stays; nothing is `/`.
/// What it answers it leaves alone if it is given it again.
///
/// # Errors
/// [`PathError`].
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    match path {
        "" => return Ok(Cow::Borrowed("/")),
        "*" => return Ok(Cow::Borrowed(path)),
        _ if !path.starts_with('/') => return Err(PathError::NotAbsolute),
        _ if is_plain(path) => return Ok(Cow::Borrowed(path)),
        _ => {}
    }
    let spelled = spell(path)?;
    let mut normal = String::with_capacity(spelled.len());
    let mut segments = spelled.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => normal.truncate(normal.rfind('/').unwrap_or(0)),
            _ if has_dot_parameters(segment) => return Err(PathError::DotParameters),
            _ => {
                normal.push('/');
                normal.push_str(segment);
            }
        }
        if is_last && matches!(segment, "" | "." | "..") {
            normal.push('/');
        }
    }
    Ok(Cow::Owned(normal))
}

/// The path's bytes without any escape, which is what servers see of it. Decoding a normalised path makes no
/// new separators, so that its segments stay what they are.
pub(crate) fn decode(path: &str) -> Cow<'_, [u8]> {
    if !path.contains('%') {
        return Cow::Borrowed(path.as_bytes());
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let escaped = (*first == b'%').then(|| escape(behind)).flatten();
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            &behind[2..]
        } else {
            behind
        };
    }
    Cow::Owned(decoded)
}

/// What a pattern says literally of paths, without escapes.
///
/// # Errors
/// Why no normalised path has that in it, to be read behind "would never match: ".
pub(super) fn literal(text: &str) -> Result<String, String> {
    let spelled = spell(text).map_err(|error| error.to_string())?;
    let odd = ["//", "/./", "/../"]
        .into_iter()
        .find(|odd| spelled.contains(odd));
    if let Some(odd) = odd {
        return Err(format!("a path has no {odd} any more when it is matched"));
    }
    String::from_utf8(decode(&spelled).into_owned()).map_err(|_| "it isn't UTF-8".to_owned())
}

/// Whether nothing is to be done: as it is with most.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().all(|byte| is_literal(*byte))
        && !bytes
            .windows(2)
            .any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'))
}

/// Spells each character in the one way.
fn spell(path: &str) -> Result<String, PathError> {
    let mut spelled = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'%' => {
                let escaped = escape(behind).ok_or(PathError::BadEscape)?;
                rest = &behind[2..];
                match escaped {
                    b'/' | b'\\' => return Err(PathError::HiddenSlash),
                    0 => return Err(PathError::ControlCharacter),
                    unreserved if is_unreserved(unreserved) => spelled.push(unreserved.into()),
                    other => push_escaped(&mut spelled, other),
                }
            }
            b'\\' => return Err(PathError::HiddenSlash),
            b'?' | b'#' => return Err(PathError::NotOnlyPath),
            control if control.is_ascii_control() => return Err(PathError::ControlCharacter),
            literal if is_literal(*literal) => spelled.push((*literal).into()),
            other => push_escaped(&mut spelled, *other),
        }
    }
    Ok(spelled)
}

/// `..;x` and the like.
fn has_dot_parameters(segment: &str) -> bool {
    let dots = segment.trim_start_matches('.');
    let is_dots = matches!(segment.len() - dots.len(), 1 | 2);
    is_dots && (dots.starts_with(';') || dots.starts_with("%3B"))
}

fn escape(behind: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn push_escaped(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    text.extend(['%', digits[0], digits[1]]);
}

/// What stands for itself in a path.
fn is_literal(byte: u8) -> bool {
    is_unreserved(byte) || b"/:@!$&'()*+,;=".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests;
