//! An HBONE client and a server, each with whatever certificate a test gives it.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use ambit::identity::{Identity, WorkloadCertificate, tls};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use lab::{Node, Result};
use rustls::ClientConfig;
use tokio::{runtime::Runtime, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DEADLINE: Duration = Duration::from_secs(20);

/// Who calls, and whom it expects.
pub(crate) struct Client<'a> {
    /// Where its socket is made.
    pub(crate) node: &'a Node,
    /// Port 15008 of a node or a pod.
    pub(crate) to: SocketAddr,
    pub(crate) config: Arc<ClientConfig>,
    /// Whose certificate it asks for by its server name.
    pub(crate) asks_for: Identity,
}

impl<'a> Client<'a> {
    pub(crate) fn new(
        node: &'a Node,
        to: SocketAddr,
        certificate: &WorkloadCertificate,
        server: &Identity,
    ) -> Self {
        let config = tls::client_config(certificate, server.clone(), tls::Protocols::Http2);
        Self {
            node,
            to,
            config,
            asks_for: server.clone(),
        }
    }

    /// As other implementations call: without a server name.
    pub(crate) fn without_name(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_sni = false;
        self
    }

    /// Opens a tunnel, makes one request in it, and has `text` echoed if that is accepted. The
    /// answer, or how the tunnel failed.
    pub(crate) fn call(
        &self,
        method: Method,
        uri: &str,
        forwarded: Option<&str>,
        text: &str,
    ) -> Result<std::result::Result<StatusCode, String>> {
        let stream = self
            .node
            .in_namespace(|| TcpStream::connect(self.to))?
            .unwrap();
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(forwarded) = forwarded {
            request = request.header("forwarded", forwarded);
        }
        let request = request.body(()).unwrap();
        let called = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { timeout(DEADLINE, self.exchange(stream, request, text)).await });
        Ok(called
            .unwrap_or_else(|_| panic!("{uri}: no answer"))
            .map_err(|error| error.to_string()))
    }

    /// CONNECT to an authority.
    pub(crate) fn connect(
        &self,
        authority: &str,
    ) -> Result<std::result::Result<StatusCode, String>> {
        self.call(Method::CONNECT, authority, None, "hello")
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        request: Request<()>,
        text: &str,
    ) -> std::result::Result<StatusCode, Box<dyn std::error::Error>> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = tls::identity_sni(&self.asks_for);
        let stream = TlsConnector::from(self.config.clone())
            .connect(name, stream)
            .await?;
        let (mut requests, connection) = h2::client::handshake(stream).await?;
        let exchange = async {
            requests = requests.ready().await?;
            let (answer, mut body) = requests.send_request(request, false)?;
            let answer = answer.await?;
            if answer.status() != StatusCode::OK {
                return Ok::<_, h2::Error>(answer.status());
            }
            body.send_data(Bytes::copy_from_slice(text.as_bytes()), true)?;
            let (mut echo, mut heard) = (answer.into_body(), Vec::new());
            while let Some(data) = echo.data().await {
                heard.extend_from_slice(&data?);
            }
            assert_eq!(heard, text.as_bytes(), "the echo");
            Ok(StatusCode::OK)
        };
        tokio::select! {
            biased;
            status = exchange => Ok(status?),
            ended = connection => Err(ended.err().map_or("closed".into(), Into::into)),
        }
    }
}

/// Something that stands where an agent should, until this is dropped.
pub(crate) struct FakeAgent(Option<Runtime>);

impl FakeAgent {
    /// Serves handshakes on port 15008 of a node.
    pub(crate) fn start(node: &Node, certificate: &WorkloadCertificate) -> Result<Self> {
        let at = SocketAddr::new(node.address(), 15008);
        let listener = node.in_namespace(|| TcpListener::bind(at))?.unwrap();
        listener.set_nonblocking(true).unwrap();
        let acceptor = TlsAcceptor::from(tls::server_config(certificate, tls::Protocols::Http2));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that lets itself be deceived gets an answer, and its connection
                    // through: the test sees that.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let Ok(mut tunnel) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((_, mut respond))) = tunnel.accept().await {
                        let accepted = http::Response::new(());
                        let _ = respond.send_response(accepted, true);
                    }
                });
            }
        });
        Ok(Self(Some(runtime)))
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(DEADLINE);
        }
    }
}
