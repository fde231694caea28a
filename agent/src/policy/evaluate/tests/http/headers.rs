//! Headers, and what servers may make of them.

use super::{Request, check, get, is_allowed, rule};

#[test]
fn headers_match_by_their_value() {
    for (condition, request, matches) in [
        (
            "'request.headers[x-user]', values: [me]",
            get("/").with("x-user", "me"),
            true,
        ),
        (
            "'request.headers[X-User]', values: [me]",
            get("/").with("x-user", "me"),
            true,
        ),
        (
            "'request.headers[x-user]', values: [me]",
            get("/").with("x-user", "Me"),
            false,
        ),
        (
            "'request.headers[x-user]', values: ['m*']",
            get("/").with("x-user", "me"),
            true,
        ),
        (
            "'request.headers[x-user]', values: ['*']",
            get("/").with("x-user", "me"),
            true,
        ),
        (
            "'request.headers[x-user]', values: ['a b']",
            get("/").with("x-user", "a b"),
            true,
        ),
        ("'request.headers[x-user]', values: ['*']", get("/"), false),
        ("'request.headers[x-user]', values: [me]", get("/"), false),
        ("'request.headers[x-user]', notValues: [me]", get("/"), true),
        (
            "'request.headers[x-user]', notValues: [me]",
            get("/").with("x-user", "me"),
            false,
        ),
        (
            "'request.headers[x-user]', notValues: [me]",
            get("/").with("x-user", "you"),
            true,
        ),
        (
            "'request.headers[x-user]', values: ['y*'], notValues: [you]",
            get("/").with("x-user", "you"),
            false,
        ),
        (
            "'request.headers[host]', values: [shop.example]",
            Request {
                host: "SHOP.example.:80",
                ..get("/")
            },
            true,
        ),
        (
            "'request.headers[host]', values: [shop.example]",
            get("/"),
            true,
        ),
    ] {
        check(
            &format!("{{when: [{{key: {condition}}}]}}"),
            &request,
            matches,
        );
    }
}

/// Whichever of the values the server believes, doubt speaks against the client.
#[test]
fn doubtful_headers_speak_against_the_client() {
    let two = get("/").with("x-user", "me").with("x-user", "evil");
    let reversed = get("/").with("x-user", "evil").with("x-user", "me");
    let alias = get("/").with("x-user", "me").with("x_user", "evil");
    let only_alias = get("/").with("x_user", "evil");
    let odd = get("/").with("x-user", "\u{e9}vil");
    let is = |values: &str| format!("{{when: [{{key: 'request.headers[x-user]', {values}}}]}}");
    for request in [&two, &reversed, &alias] {
        for (action, values) in [
            ("ALLOW", "values: [me]"),
            ("ALLOW", "values: ['m*']"),
            ("ALLOW", "notValues: [evil]"),
            ("DENY", "values: [evil]"),
            ("DENY", "values: ['e*']"),
            ("DENY", "notValues: [me]"),
        ] {
            let policies = rule(action, &is(values));
            assert!(
                !is_allowed(&policies, request),
                "{action} {values} {request:?}"
            );
        }
    }
    for (action, values, request, allowed) in [
        ("ALLOW", "values: [me, evil]", &two, true),
        ("DENY", "notValues: [me, evil]", &two, true),
        ("DENY", "values: ['me,evil']", &two, false),
        ("ALLOW", "values: [evil]", &only_alias, false),
        ("DENY", "values: [evil]", &only_alias, false),
        ("ALLOW", "notValues: ['*']", &only_alias, false),
        ("ALLOW", "notValues: [evil]", &only_alias, false),
        ("DENY", "values: ['*']", &odd, false),
        ("ALLOW", "values: [evil]", &odd, false),
        (
            "ALLOW",
            "notValues: ['*']",
            &get("/").with("x-user", ""),
            false,
        ),
        ("DENY", "values: ['*']", &get("/").with("x-user", ""), false),
        (
            "ALLOW",
            "values: ['*']",
            &get("/").with("x-user", ""),
            false,
        ),
    ] {
        let policies = rule(action, &is(values));
        assert_eq!(
            is_allowed(&policies, request),
            allowed,
            "{action} {values} {request:?}"
        );
    }
}
