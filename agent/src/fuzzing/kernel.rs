//! What the kernel says of its own structs.

use crate::splice::btf::Btf;

const FIELDS: [(&str, &[&str]); 4] = [
    ("outer", &["first"]),
    ("outer", &["hidden"]),
    ("outer", &["inner", "b"]),
    ("inner", &["a"]),
];

/// BTF is read or refused, and answers what it is asked in time.
pub(super) fn btf(data: &[u8]) {
    let Ok(read) = Btf::parse(data) else {
        return;
    };
    for (of, path) in FIELDS {
        let Ok(offset) = read.offset(of, path) else {
            continue;
        };
        // The names must be in there to be found.
        for name in path.iter().chain([&of]) {
            let found = data.windows(name.len()).any(|it| it == name.as_bytes());
            assert!(found, "{of} {path:?} is at {offset}");
        }
    }
}
