//! Tokens, once they are verified.

use serde_json::json;

use super::{check, get};

#[test]
fn tokens_match_by_what_they_say() {
    let token = json!({
        "iss": "https://issuer", "sub": "me", "aud": ["x", "y"], "azp": "app",
        "groups": ["admin"], "nested": { "role": "boss" },
    });
    let signed = || get("/").of(token.clone());
    for (positive, negative, value, matches) in [
        (
            "source: {requestPrincipals: LIST}",
            "source: {notRequestPrincipals: LIST}",
            "https://issuer/me",
            true,
        ),
        (
            "source: {requestPrincipals: LIST}",
            "source: {notRequestPrincipals: LIST}",
            "https://issuer/*",
            true,
        ),
        (
            "source: {requestPrincipals: LIST}",
            "source: {notRequestPrincipals: LIST}",
            "*/me",
            true,
        ),
        (
            "source: {requestPrincipals: LIST}",
            "source: {notRequestPrincipals: LIST}",
            "*",
            true,
        ),
        (
            "source: {requestPrincipals: LIST}",
            "source: {notRequestPrincipals: LIST}",
            "https://other/me",
            false,
        ),
        (
            "key: request.auth.principal, values: LIST",
            "key: request.auth.principal, notValues: LIST",
            "https://issuer/me",
            true,
        ),
        (
            "key: request.auth.audiences, values: LIST",
            "key: request.auth.audiences, notValues: LIST",
            "y",
            true,
        ),
        (
            "key: request.auth.audiences, values: LIST",
            "key: request.auth.audiences, notValues: LIST",
            "z",
            false,
        ),
        (
            "key: request.auth.presenter, values: LIST",
            "key: request.auth.presenter, notValues: LIST",
            "app",
            true,
        ),
        (
            "key: 'request.auth.claims[groups]', values: LIST",
            "key: 'request.auth.claims[groups]', notValues: LIST",
            "admin",
            true,
        ),
        (
            "key: 'request.auth.claims[groups]', values: LIST",
            "key: 'request.auth.claims[groups]', notValues: LIST",
            "other",
            false,
        ),
        (
            "key: 'request.auth.claims[nested][role]', values: LIST",
            "key: 'request.auth.claims[nested][role]', notValues: LIST",
            "boss",
            true,
        ),
        (
            "key: 'request.auth.claims[missing]', values: LIST",
            "key: 'request.auth.claims[missing]', notValues: LIST",
            "*",
            false,
        ),
    ] {
        let value = format!("['{value}']");
        let text = |clause: &str| match clause.starts_with("key") {
            true => format!("{{when: [{{{}}}]}}", clause.replace("LIST", &value)),
            false => format!("{{from: [{{{}}}]}}", clause.replace("LIST", &value)),
        };
        check(&text(positive), &signed(), matches);
        check(&text(negative), &signed(), !matches);
        // Without a token nobody is anybody.
        check(&text(positive), &get("/"), false);
        check(&text(negative), &get("/"), true);
    }
    let anonymous = get("/").of(json!({ "iss": "https://issuer" }));
    check(
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        &anonymous,
        false,
    );
}
