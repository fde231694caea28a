//! Channels inside one process, for tests.

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use super::{Channel, Handshaken, Incoming, connect};
use crate::identity::{
    testing::{TestAuthority, shop},
    tls::{Protocols, client_config, identity_sni, server_config},
};

/// Both ends of a TCP connection.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// A client's and a server's end, each knowing the other.
pub(crate) async fn shake_hands<Io: AsyncRead + AsyncWrite + Unpin>(
    near: Io,
    far: Io,
) -> (Handshaken<Io>, Handshaken<Io>) {
    let mesh = TestAuthority::new();
    let (client, server) = (mesh.issue(&shop("client")), mesh.issue(&shop("server")));
    let client = client_config(&client, shop("server"), Protocols::Any);
    let server = server_config(&server, Protocols::Any);
    let name: ServerName<'static> = identity_sni(&shop("server"));
    let accept = async { Incoming::read(far).await?.accept(server).await };
    let (near, far) = tokio::join!(connect(near, client, name), accept);
    (near.unwrap(), far.unwrap())
}

/// Two channels with a TCP connection between them.
pub(crate) async fn channels() -> (Box<Channel<TcpStream>>, Box<Channel<TcpStream>>) {
    let (near, far) = tcp_pair().await;
    let (near, far) = shake_hands(near, far).await;
    (near.channel, far.channel)
}
