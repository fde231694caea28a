//! One authenticated HTTP/2 connection to the authority.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::{body::Body, client::Grpc, codegen::Service};

use super::{Error, Settings};
use crate::identity::{tls, wire::MAX_MESSAGE};

/// Ends with the value.
pub(super) struct Connection {
    sender: http2::SendRequest<Body>,
    origin: Uri,
    _driver: AbortOnDropHandle<()>,
}

/// Dials, and checks the server against the root file as it is now.
pub(super) async fn open(settings: &Settings) -> Result<Connection, Error> {
    let address = &settings.address;
    let name = match &settings.server_name {
        Some(name) => name.as_str(),
        None => host(address),
    };
    let invalid = |reason: &str| Error::Unreachable {
        address: address.clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, reason),
    };
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|_| invalid("it has no valid host name or address"))?;
    let origin = Uri::builder()
        .scheme("https")
        .authority(address.as_str())
        .path_and_query("/")
        .build()
        .map_err(|_| invalid("it is not of the form host:port"))?;
    let config = config(settings).await?;

    let connected = TcpStream::connect(address.as_str()).await;
    let stream = connected
        // A request of several frames isn't to wait for acknowledgements.
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|source| Error::Unreachable {
            address: address.clone(),
            source,
        })?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server_name, stream)
        .await
        .map_err(|error| Error::NotTrusted {
            path: settings.root_file.clone(),
            address: address.clone(),
            name: name.to_owned(),
            reason: error.to_string(),
        })?;

    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::Connection {
            address: address.clone(),
            reason: error.to_string(),
        })?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "the connection to the certificate authority ended");
        }
    });
    Ok(Connection {
        sender,
        origin,
        _driver: AbortOnDropHandle::new(driver),
    })
}

impl Connection {
    pub(super) fn into_grpc(self) -> Grpc<Self> {
        let origin = self.origin.clone();
        Grpc::with_origin(self, origin)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

/// What tonic calls through.
impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

async fn config(settings: &Settings) -> Result<ClientConfig, Error> {
    let path = &settings.root_file;
    let unusable = |reason: String| Error::File {
        what: "root file",
        path: path.clone(),
        reason,
    };
    let pem = tokio::fs::read(path)
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no PEM certificate".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(tls::crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        for (address, expected) in [
            ("control.ns.svc:15012", "control.ns.svc"),
            ("10.0.0.1:15012", "10.0.0.1"),
            ("[fd00::1]:15012", "fd00::1"),
        ] {
            assert_eq!(host(address), expected);
        }
    }
}
