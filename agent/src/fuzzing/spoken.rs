//! What a client speaks.

use crate::waypoint::detect::{MOST, Spoken, tell};

/// However the network cuts what a client says, the answer is the same.
pub(super) fn run(data: &[u8]) {
    let whole = tell(data);
    for end in 0..=data.len().min(MOST + 2) {
        if let Some(spoken) = tell(&data[..end]) {
            assert_eq!(whole, Some(spoken), "told by {end} bytes of {data:?}");
        }
    }
    assert!(whole.is_some() || data.len() < MOST, "{data:?}");
    let line = data.iter().position(|byte| !b"\r\n".contains(byte));
    let line = &data[line.unwrap_or(data.len())..];
    match whole {
        Some(Spoken::Http2) => assert!(data.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        Some(Spoken::Http1) => {
            let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            assert!(method.len() < line.len() && method.iter().all(u8::is_ascii_uppercase));
        }
        Some(Spoken::Other) => {
            for method in ["GET ", "POST ", "CONNECT ", "PATCH "] {
                let is_near = data.len() - line.len() + method.len() <= MOST;
                assert!(
                    !(is_near && line.starts_with(method.as_bytes())),
                    "{data:?}"
                );
            }
        }
        None => {}
    }
}
