//! What the modes that speak protocols share: these run on tokio.

use std::{future::Future, net::SocketAddr};

use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::{Server, report, server};

/// Runs it to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    Runtime::new()?.block_on(future)
}

/// Listens for ever and serves every connection in a task of its own.
pub(crate) fn serve<F>(
    server: &Server,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = server::listen(server)?;
    listener.set_nonblocking(true)?;
    block_on(async {
        let listener = TcpListener::from_std(listener)?;
        report(&json!({ "listening": listener.local_addr()?.to_string() }))?;
        loop {
            let (stream, peer) = listener.accept().await?;
            tokio::spawn(serve(stream, peer));
        }
    })
}
