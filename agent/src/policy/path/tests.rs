//! What paths become, what is refused, and what no result has.

use std::borrow::Cow;

use proptest::prelude::*;

use super::{PathError, decode, normalise};
use crate::fuzzing;

#[test]
fn spellings_of_one_path_become_one() {
    for (given, normal) in [
        ("", "/"),
        ("/", "/"),
        ("*", "*"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//a", "/a"),
        ("/a//b///c", "/a/b/c"),
        ("//", "/"),
        ("/./a", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/a/../b", "/b"),
        ("/a/..//b", "/b"),
        ("/a//../b", "/b"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a/../../b", "/b"),
        ("/%2e%2e/a", "/a"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%61dmin", "/admin"),
        ("/%7Ea", "/~a"),
        ("/a%2ab", "/a%2Ab"),
        ("/a%20b", "/a%20b"),
        ("/a%3bb", "/a%3Bb"),
        ("/a%c3%a9", "/a%C3%A9"),
        ("/aé", "/a%C3%A9"),
        ("/a\"<>^`{|}b", "/a%22%3C%3E%5E%60%7B%7C%7Db"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a;x=1/b", "/a;x=1/b"),
        ("/A", "/A"),
        ("/...", "/..."),
        ("/.a/..b/c..", "/.a/..b/c.."),
        ("/a:b@c", "/a:b@c"),
    ] {
        assert_eq!(normalise(given).as_deref(), Ok(normal), "{given}");
    }
}

#[test]
fn what_is_normal_is_not_copied() {
    for path in ["/", "/a/b.c/d-e_f~g", "/pkg.Service/Method", "/a;x=1,y"] {
        assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
    }
}

#[test]
fn what_servers_read_differently_is_refused() {
    for (path, expected) in [
        ("a", PathError::NotAbsolute),
        ("http://a/b", PathError::NotAbsolute),
        ("**", PathError::NotAbsolute),
        ("/%", PathError::BadEscape),
        ("/%2", PathError::BadEscape),
        ("/%zz", PathError::BadEscape),
        ("/%+1", PathError::BadEscape),
        ("/%%32e", PathError::BadEscape),
        ("/a%2fb", PathError::HiddenSlash),
        ("/a%2Fb", PathError::HiddenSlash),
        ("/a%5cb", PathError::HiddenSlash),
        ("/a\\b", PathError::HiddenSlash),
        ("/..%2f..%2fadmin", PathError::HiddenSlash),
        ("/a%00", PathError::ControlCharacter),
        ("/a\0", PathError::ControlCharacter),
        ("/a\r\nb", PathError::ControlCharacter),
        ("/a\x7f", PathError::ControlCharacter),
        ("/a?b", PathError::NotOnlyPath),
        ("/a#b", PathError::NotOnlyPath),
        ("/a/..;/b", PathError::DotParameters),
        ("/a/..;x=1/b", PathError::DotParameters),
        ("/a/.;/b", PathError::DotParameters),
        ("/a/%2e.;/b", PathError::DotParameters),
        ("/a/..%3b/b", PathError::DotParameters),
        ("/a/..%3bx;y/b", PathError::DotParameters),
    ] {
        assert_eq!(normalise(path), Err(expected), "{path:?}");
    }
}

#[test]
fn decoding_leaves_no_escape() {
    for (path, decoded) in [
        ("/a", &b"/a"[..]),
        ("/a%20b", b"/a b"),
        ("/%FF", b"/\xFF"),
        ("/%252e", b"/%2e"),
        ("/%2", b"/%2"),
    ] {
        assert_eq!(*decode(path), *decoded, "{path}");
    }
}

/// Text in which what matters comes close together.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "/([./;%25eEfFcC0-9A-Ba-b\\\\é?#+]|%2[eEfF]|%5[cC]|%25|%00|%3b|//|\\.\\.){0,24}",
        any::<String>().prop_map(|text| format!("/{text}")),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn a_normal_path_has_nothing_that_could_be_read_otherwise(path in hostile()) {
        fuzzing::path::check(&path);
    }

    #[test]
    fn decoding_makes_no_separators_of_a_normal_path(path in hostile()) {
        if let Ok(normal) = normalise(&path) {
            let separators = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
            prop_assert_eq!(separators(&decode(&normal)), separators(normal.as_bytes()));
        }
    }
}
