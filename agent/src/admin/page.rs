//! The web page: one file, which asks the other endpoints.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header::CONTENT_SECURITY_POLICY};
use sha2::{Digest, Sha256};

use super::routes::{Answer, answer};

const PAGE: &str = include_str!("page.html");

/// It may run its own script and style, and ask whom it came from; nothing else.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |element| {
        let hash = STANDARD.encode(Sha256::digest(inside(element)));
        format!("'sha256-{hash}'")
    };
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    HeaderValue::try_from(policy).ok()
});

/// The text of the page's one element of this name.
fn inside(element: &str) -> &'static str {
    let after = PAGE.split_once(&format!("<{element}>"));
    let inside = after.and_then(|(_, after)| after.split_once(&format!("</{element}>")));
    inside.map_or("", |(inside, _)| inside)
}

pub(super) fn show() -> Answer {
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    if let Some(policy) = &*POLICY {
        page.headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_run_what_it_brings_and_nothing_else() {
        let page = show();
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        let empty = STANDARD.encode(Sha256::digest(""));
        assert!(
            !policy.contains(&empty),
            "an element wasn't found: {policy}"
        );
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        for refused in ["unsafe", "*", "http:", "https:"] {
            assert!(!policy.contains(refused), "{policy}");
        }
        // What would need more, or would take text for HTML.
        for refused in [
            "style=",
            "onclick",
            " src=",
            "@import",
            "url(",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(refused), "{refused}");
        }
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
    }
}
