//! The TLS handshake, driven by hand so that the keys can be had at its end.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::{CertificateDer, ServerName},
    server::{Acceptor, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    Channel, Keys, RecordError,
    records::{Successors, record_length},
};

/// What both sides say together is below this, with room for long certificate chains. More isn't
/// a handshake.
const MAX_HANDSHAKE: usize = 128 * 1024;
/// What is read at once.
const READ: usize = 8 * 1024;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection beneath broke off.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS found something wrong with the peer, or the peer with us.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// Not TLS.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// More bytes than any handshake has.
    #[error("a TLS handshake of more than {MAX_HANDSHAKE} bytes")]
    TooLong,
}

/// A channel that is ready, and who is at its other end.
#[derive(Debug)]
pub struct Handshaken<Io> {
    /// The channel.
    /// In a box, since it is handed on from task to task.
    pub channel: Box<Channel<Io>>,
    /// The protocol that both sides agreed to speak in it.
    pub alpn: Option<Vec<u8>>,
    /// The peer's chain, leaf first, which the configuration's verifier has found good.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Shakes hands as a client.
///
/// # Errors
/// [`HandshakeError`]; the peer has been sent the alert that says why, where TLS has one.
pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Handshaken<Io>, HandshakeError> {
    let mut connection = UnbufferedClientConnection::new(config, name)?;
    let mut exchange = Exchange::new(io, Vec::new());
    exchange.run(&mut connection).await?;
    let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
    let certificates = owned(connection.peer_certificates());
    let (secrets, successors) = connection.dangerous_into_kernel_connection()?;
    let keys = Keys::new(secrets, Successors::Client(successors));
    Ok(exchange.finish(keys, alpn, certificates))
}

/// A client that has said what it wants, and waits for our certificate.
pub struct Incoming<Io> {
    io: Io,
    received: Vec<u8>,
    hello: ClientHello,
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// Whom it asks for.
    pub server_name: Option<String>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Incoming<Io> {
    /// Waits for a client's first message.
    ///
    /// # Errors
    /// [`HandshakeError`]; the client has been told.
    pub async fn read(mut io: Io) -> Result<Self, HandshakeError> {
        let mut acceptor = Acceptor::default();
        let mut received = Vec::new();
        loop {
            let before = received.len();
            read_more(&mut io, &mut received).await?;
            let mut unseen = &received[before..];
            while !unseen.is_empty() {
                acceptor.read_tls(&mut unseen)?;
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let hello = ClientHello {
                            server_name: accepted.client_hello().server_name().map(str::to_owned),
                        };
                        return Ok(Self {
                            io,
                            received,
                            hello,
                        });
                    }
                    Err((error, mut alert)) => {
                        let mut bytes = Vec::new();
                        alert.write_all(&mut bytes)?;
                        // The error that led here says more than one of telling the client.
                        let _ = io.write_all(&bytes).await;
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// What the client said.
    #[must_use]
    pub fn hello(&self) -> &ClientHello {
        &self.hello
    }

    /// Goes on with the certificate that fits.
    ///
    /// # Errors
    /// [`HandshakeError`]; the client has been told.
    pub async fn accept(self, config: Arc<ServerConfig>) -> Result<Handshaken<Io>, HandshakeError> {
        let mut connection = UnbufferedServerConnection::new(config)?;
        let mut exchange = Exchange::new(self.io, self.received);
        exchange.run(&mut connection).await?;
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        let certificates = owned(connection.peer_certificates());
        let (secrets, successors) = connection.dangerous_into_kernel_connection()?;
        let keys = Keys::new(secrets, Successors::Server(successors));
        Ok(exchange.finish(keys, alpn, certificates))
    }
}

fn owned(certificates: Option<&[CertificateDer<'_>]>) -> Vec<CertificateDer<'static>> {
    let certificates = certificates.unwrap_or_default();
    certificates
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}

/// What the state machine wants next.
enum Next {
    /// It has more to do already.
    Again,
    /// These bytes are to be sent.
    Send(Vec<u8>),
    /// All that it wanted to send is to go out now.
    Flush,
    /// It needs another record.
    Receive,
    /// Both sides are done.
    Done,
}

/// Either side's state machine.
trait Machine {
    /// Goes on with whole records; also says how many of the bytes are used up.
    fn step(&mut self, received: &mut [u8]) -> (usize, Result<Next, rustls::Error>);

    /// Whether something waits to be sent, an alert for example.
    fn has_more_to_send(&self) -> bool;
}

impl Machine for UnbufferedClientConnection {
    fn step(&mut self, received: &mut [u8]) -> (usize, Result<Next, rustls::Error>) {
        step(self.process_tls_records(received))
    }

    fn has_more_to_send(&self) -> bool {
        self.wants_write()
    }
}

impl Machine for UnbufferedServerConnection {
    fn step(&mut self, received: &mut [u8]) -> (usize, Result<Next, rustls::Error>) {
        step(self.process_tls_records(received))
    }

    fn has_more_to_send(&self) -> bool {
        self.wants_write()
    }
}

/// One step of either side's state machine, and how many received bytes are used up.
fn step<Data>(status: UnbufferedStatus<'_, '_, Data>) -> (usize, Result<Next, rustls::Error>) {
    let UnbufferedStatus { discard, state } = status;
    let next = state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let mut bytes = Vec::new();
            loop {
                match data.encode(&mut bytes) {
                    Ok(_) => return Ok(Next::Send(bytes)),
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        bytes.resize(required_size, 0);
                    }
                    Err(EncodeError::AlreadyEncoded) => return Ok(Next::Again),
                }
            }
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Next::Flush)
        }
        ConnectionState::BlockedHandshake => Ok(Next::Receive),
        ConnectionState::WriteTraffic(_) => Ok(Next::Done),
        // Early data isn't configured, and no record is offered beyond the handshake's last.
        _ => Err(rustls::Error::HandshakeNotComplete),
    });
    (discard, next)
}

struct Exchange<Io> {
    io: Io,
    received: Vec<u8>,
    to_send: Vec<u8>,
    /// How much of `received` the state machine may see: whole records, one more each time, so
    /// that none beyond the handshake is opened here.
    offered: usize,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Exchange<Io> {
    fn new(io: Io, received: Vec<u8>) -> Self {
        Self {
            io,
            received,
            to_send: Vec::new(),
            offered: 0,
        }
    }

    async fn run(&mut self, machine: &mut impl Machine) -> Result<(), HandshakeError> {
        loop {
            let (used, next) = machine.step(&mut self.received[..self.offered]);
            self.received.drain(..used);
            self.offered -= used;
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Send(bytes)) => self.to_send.extend(bytes),
                Ok(Next::Flush) => self.flush().await?,
                Ok(Next::Receive) => self.offer_record().await?,
                Ok(Next::Done) => return self.flush().await,
                Err(error) => {
                    // What is left to send is the alert. Asked for more than there is, the failed
                    // machine would look into bytes that are gone.
                    while machine.has_more_to_send()
                        && let (_, Ok(Next::Send(bytes))) = machine.step(&mut [])
                    {
                        self.to_send.extend(bytes);
                    }
                    let _ = self.flush().await;
                    return Err(error.into());
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), HandshakeError> {
        self.io.write_all(&self.to_send).await?;
        self.to_send.clear();
        Ok(self.io.flush().await?)
    }

    async fn offer_record(&mut self) -> Result<(), HandshakeError> {
        loop {
            let unseen = &self.received[self.offered..];
            match record_length(unseen)? {
                Some(length) if length <= unseen.len() => {
                    self.offered += length;
                    return Ok(());
                }
                _ => read_more(&mut self.io, &mut self.received).await?,
            }
        }
    }

    fn finish(
        self,
        keys: Keys,
        alpn: Option<Vec<u8>>,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Handshaken<Io> {
        let channel = Box::new(Channel {
            io: self.io,
            keys,
            received: self.received,
        });
        Handshaken {
            channel,
            alpn,
            certificates,
        }
    }
}

async fn read_more<Io: AsyncRead + Unpin>(
    io: &mut Io,
    received: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    if received.len() >= MAX_HANDSHAKE {
        return Err(HandshakeError::TooLong);
    }
    received.reserve(READ);
    match io.read_buf(received).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        _ => Ok(()),
    }
}
