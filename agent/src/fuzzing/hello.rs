//! What a client says first to the port of direct tunnels, before anything is known of it.

use futures::FutureExt;
use tokio::io::{AsyncReadExt, join, sink};

use crate::channel::Incoming;

/// A byte that says where the network cuts it, and what is said.
pub(super) fn run(data: &[u8]) {
    let Some((cut, said)) = data.split_first() else {
        return;
    };
    let (first, second) = said.split_at(usize::from(*cut).min(said.len()));
    assert_eq!(read(said, &[]), read(first, second), "cut at {cut}");
}

/// Whom the client asks for; `Err` if it has said nothing of use.
fn read(first: &[u8], second: &[u8]) -> Result<Option<String>, ()> {
    let io = join(first.chain(second), sink());
    let incoming = Incoming::read(io).now_or_never();
    let incoming = incoming.expect("all of it is there").map_err(|_| ())?;
    Ok(incoming.hello().server_name.clone())
}
