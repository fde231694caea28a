//! Paths of requests: what servers make of them, and what policies do.

use serde_json::json;

use crate::policy::{
    parse,
    path::{decode, normalise},
};

/// A pattern of a policy, a line feed, and a path.
pub(super) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, path) = text.split_once('\n').unwrap_or(("/admin*", &text));
    check(path);
    check_policy(pattern, path);
}

/// What holds of every path that isn't refused.
pub(crate) fn check(path: &str) {
    let Ok(normal) = normalise(path) else {
        return;
    };
    assert_eq!(normalise(&normal).as_deref(), Ok(&*normal), "{path:?}");
    assert!(
        normal.is_ascii() && !normal.contains(|c: char| c.is_ascii_control()),
        "{path:?} became {normal:?}"
    );
    if normal == "*" {
        return;
    }
    let upper = normal.to_ascii_uppercase();
    for never in [
        "//", "\\", "%2F", "%5C", "%00", "%2E", "?", "#", "/../", "/./", "/..;", "/.;", "/..%3B",
    ] {
        assert!(!upper.contains(never), "{path:?} became {normal:?}");
    }
    assert!(normal.starts_with('/') && !normal.ends_with("/..") && !normal.ends_with("/."));
    // What the client asked for is what is decided upon, and what every server sees of it that is sent on,
    // whether it decodes first or last.
    let seen = decode(&normal);
    assert_eq!(*seen, canonical(path), "{path:?} became {normal:?}");
    assert_eq!(*seen, canonical(&normal), "{path:?} became {normal:?}");
    assert_eq!(resolve(normal.as_bytes()), normal.as_bytes(), "{path:?}");
}

/// A policy decides by what servers see, however it is spelled.
fn check_policy(pattern: &str, path: &str) {
    let policy = parse::authorization_policy(json!({
        "metadata": { "name": "p" },
        "spec": { "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": [pattern] } }] }] },
    }));
    let (Ok(policy), Ok(normal)) = (policy, normalise(path)) else {
        return;
    };
    let patterns = &policy.rules[0].to[0].paths.any_of;
    let decided = patterns[0].fits(&decode(&normal));
    if path == "*" || pattern.contains(['{', '}']) {
        return;
    }
    let seen = canonical(path);
    let expected = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => !seen.is_empty(),
        (Some(suffix), _) => seen.ends_with(&percent_decode(suffix.as_bytes())),
        (_, Some(prefix)) => seen.starts_with(&percent_decode(prefix.as_bytes())),
        _ => seen == percent_decode(pattern.as_bytes()),
    };
    assert_eq!(decided, expected, "{pattern:?} and {path:?}");
}

/// What the plainest of servers makes of a path: all escapes decoded, `//` merged, dots resolved.
pub(super) fn canonical(path: &str) -> Vec<u8> {
    resolve(&percent_decode(path.as_bytes()))
}

/// Merges slashes, and removes dot segments as RFC 3986 (5.2.4) does.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_directory = true;
    for segment in path.split(|byte| *byte == b'/') {
        is_directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut resolved: Vec<u8> = segments
        .iter()
        .flat_map(|it| [b"/", *it].concat())
        .collect();
    if is_directory {
        resolved.push(b'/');
    }
    resolved
}

/// As often as it takes to say it: `%` and two digits are a byte, all else is itself.
pub(super) fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digits = |at: usize| {
        let digits = std::str::from_utf8(text.get(at + 1..at + 3)?).ok()?;
        let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        all.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
    };
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let escaped = (text[at] == b'%').then(|| digits(at)).flatten();
        decoded.push(escaped.unwrap_or(text[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}
