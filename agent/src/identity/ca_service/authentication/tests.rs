use std::os::unix::fs::PermissionsExt;

use super::*;

fn write(path: &Path, text: &str) {
    files::write_atomically(path, text, 0o600).unwrap();
}

async fn node_of(tokens: &TokenFile, token: &str) -> Option<String> {
    tokens
        .authenticate(token)
        .await
        .ok()
        .map(|caller| caller.node)
}

#[test]
fn a_line_is_a_token_and_a_node() {
    let hex = |text: &str| {
        let digits = sha256(text).map(|byte| format!("{byte:02x}"));
        format!("sha256:{}", digits.concat())
    };
    let text = format!(
        "# comment\n\nplain, node-a\n{},node-b,ignored\n",
        hex("hashed")
    );
    let tokens = parse(&text).unwrap();
    for (token, expected) in [
        ("plain", Some("node-a")),
        ("hashed", Some("node-b")),
        ("Plain", None),
        ("", None),
        (&hex("hashed"), None),
    ] {
        let found = find(&tokens, token).map(|caller| caller.node);
        assert_eq!(found.as_deref(), expected, "{token}");
    }
}

#[test]
fn a_wrong_line_is_named_by_number_and_not_shown() {
    for (text, line) in [
        ("secret", 1),
        ("a,b\nsecret,", 2),
        (",node", 1),
        ("a,b\n\nsha256:secret,node", 3),
    ] {
        let (number, reason) = parse(text).unwrap_err();
        assert_eq!(number, line, "{text}");
        assert!(!reason.contains("secret"));
    }
}

#[tokio::test]
async fn a_change_is_read_and_a_bad_change_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    write(&path, "one,node-a\n");
    let tokens = TokenFile::open(&path).unwrap();
    assert_eq!(node_of(&tokens, "one").await.as_deref(), Some("node-a"));
    write(&path, "two,node-a\n");
    assert_eq!(node_of(&tokens, "one").await, None);
    assert_eq!(node_of(&tokens, "two").await.as_deref(), Some("node-a"));
    write(&path, "broken\n");
    assert_eq!(node_of(&tokens, "two").await.as_deref(), Some("node-a"));
    fs::remove_file(&path).unwrap();
    assert_eq!(node_of(&tokens, "two").await.as_deref(), Some("node-a"));
    write(&path, "three,node-b\n");
    assert_eq!(node_of(&tokens, "three").await.as_deref(), Some("node-b"));
}

#[test]
fn a_file_that_the_world_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    write(&path, "one,node-a\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = TokenFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}
