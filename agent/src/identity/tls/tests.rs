use std::{
    io,
    time::{Duration, SystemTime},
};

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::identity::testing::{TestAuthority, shop};

type Outcome<S> = Result<S, PeerError>;

/// Both sides' view of a handshake. A client learns only from its first read whether the server
/// liked its certificate, so a byte goes over.
async fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (
    Outcome<client::TlsStream<DuplexStream>>,
    Outcome<server::TlsStream<DuplexStream>>,
) {
    let (near, far) = duplex(64 * 1024);
    let connect = async {
        let name = identity_sni(&shop("server"));
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.read_u8().await?;
        io::Result::Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        io::Result::Ok(stream)
    };
    let (connected, accepted) = tokio::join!(connect, accept);
    let in_words = |error: io::Error| PeerError::from_io(&error).expect("an error of TLS");
    (connected.map_err(in_words), accepted.map_err(in_words))
}

#[tokio::test]
async fn two_workloads_prove_their_identities_with_the_strongest_settings() {
    let mesh = TestAuthority::new();
    let client = client_config(
        &mesh.issue(&shop("client")),
        shop("server"),
        Protocols::Http2,
    );
    let server = server_config(&mesh.issue(&shop("server")), Protocols::Any);
    // Twice: the second connection must not resume the first.
    for _ in 0..2 {
        let (connected, accepted) = handshake(Arc::clone(&client), Arc::clone(&server)).await;
        let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
        let (_, near) = connected.get_ref();
        let (_, far) = accepted.get_ref();
        assert_eq!(
            peer_identity(near.peer_certificates().unwrap()),
            Ok(shop("server"))
        );
        assert_eq!(
            peer_identity(far.peer_certificates().unwrap()),
            Ok(shop("client"))
        );
        assert_eq!(near.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(near.alpn_protocol(), Some(ALPN_HTTP2));
        let suite = near.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        let group = near.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        assert_eq!(near.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(near.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn whoever_cannot_prove_the_right_identity_is_refused_by_reason() {
    let mesh = TestAuthority::new();
    let stranger = TestAuthority::new();
    let partner = TestAuthority::of("partner");
    let (client, server) = (shop("client"), shop("server"));
    let hour = Duration::from_secs(3600);
    let yesterday = SystemTime::now() - 24 * hour;
    let tomorrow = SystemTime::now() + 24 * hour;
    let good_client = || mesh.issue(&client);
    let good_server = || mesh.issue(&server);
    let foreign = Identity::new("partner", "shop", "client");

    // Who shows what, what the client makes of it, what the server does.
    let by_client = |error| (Some(error), None);
    let by_server = |error| (None, Some(error));
    let cases = [
        ("right", good_client(), good_server(), (None, None)),
        (
            "server with another identity",
            good_client(),
            mesh.issue(&shop("other")),
            by_client(PeerError::OtherIdentity {
                expected: server.clone(),
                presented: shop("other"),
            }),
        ),
        (
            "server expired",
            good_client(),
            mesh.issue_at(&server, yesterday, hour, &[]),
            by_client(PeerError::Expired),
        ),
        (
            "server not valid yet",
            good_client(),
            mesh.issue_at(&server, tomorrow, hour, &[]),
            by_client(PeerError::NotYetValid),
        ),
        (
            "server of a foreign root",
            good_client(),
            stranger.issue_at(&server, SystemTime::now(), hour, &[&mesh]),
            by_client(PeerError::Untrusted),
        ),
        (
            "client expired",
            mesh.issue_at(&client, yesterday, hour, &[]),
            good_server(),
            by_server(PeerError::Expired),
        ),
        (
            "client of a foreign root",
            stranger.issue_at(&client, SystemTime::now(), hour, &[&mesh]),
            good_server(),
            by_server(PeerError::Untrusted),
        ),
        (
            "client of another trust domain, though of a trusted root",
            partner.issue_at(&foreign, SystemTime::now(), hour, &[&mesh]),
            mesh.issue_at(&server, SystemTime::now(), hour, &[&partner]),
            by_server(PeerError::OtherTrustDomain {
                expected: "cluster.local".to_owned(),
                presented: foreign.clone(),
            }),
        ),
    ];
    for (case, client, at_server, (client_says, server_says)) in cases {
        let (connected, accepted) = handshake(
            client_config(&client, server.clone(), Protocols::Any),
            server_config(&at_server, Protocols::Any),
        )
        .await;
        match (client_says, server_says) {
            (None, None) => assert!(connected.is_ok() && accepted.is_ok(), "{case}"),
            (Some(expected), _) => {
                assert_eq!(connected.err(), Some(expected), "{case}");
                let told = accepted.err();
                assert!(
                    matches!(told, Some(PeerError::RefusedByPeer(_))),
                    "{case}: {told:?}"
                );
            }
            (_, Some(expected)) => {
                assert_eq!(accepted.err(), Some(expected), "{case}");
                let told = connected.err();
                assert!(
                    matches!(told, Some(PeerError::RefusedByPeer(_))),
                    "{case}: {told:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn certificates_from_both_sides_of_a_root_rotation_trust_each_other() {
    let mesh = TestAuthority::new();
    let now = SystemTime::now();
    mesh.authority
        .rotate_now(now - Duration::from_secs(3 * 24 * 3600))
        .unwrap();
    let before = mesh.issue(&shop("server"));
    mesh.authority.advance(now).unwrap();
    let after = mesh.issue(&shop("client"));
    let (connected, accepted) = handshake(
        client_config(&after, shop("server"), Protocols::Any),
        server_config(&before, Protocols::Any),
    )
    .await;
    assert!(connected.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let mesh = TestAuthority::new();
    let certificate = mesh.issue(&shop("client"));
    let verifier = ExpectIdentity::new(Arc::clone(certificate.roots()), shop("server"));
    let client = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let server = server_config(&mesh.issue(&shop("server")), Protocols::Any);
    let (_, accepted) = handshake(Arc::new(client), server).await;
    assert_eq!(accepted.err(), Some(PeerError::NoCertificate));
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mesh = TestAuthority::new();
    let server = server_config(&mesh.issue(&shop("server")), Protocols::Any);
    // A ClientHello as of RFC 5246: no supported_versions; P-256 and ECDSA with SHA-256.
    let extensions = b"\x00\x0a\x00\x04\x00\x02\x00\x17\x00\x0d\x00\x04\x00\x02\x04\x03";
    let mut body = b"\x03\x03".to_vec();
    body.extend([7; 32]);
    body.extend(b"\x00\x00\x02\xc0\x2b\x01\x00\x00\x10");
    body.extend(extensions);
    let length = |extra: usize| u8::try_from(body.len() + extra).unwrap();
    let mut hello = vec![22, 3, 1, 0, length(4), 1, 0, 0, length(0)];
    hello.extend(&body);

    let (mut near, far) = duplex(1024);
    near.write_all(&hello).await.unwrap();
    let error = TlsAcceptor::from(server).accept(far).await.unwrap_err();
    let error = PeerError::from_io(&error);
    assert!(
        matches!(error, Some(PeerError::Incompatible(_))),
        "{error:?}"
    );
}

#[test]
fn a_server_name_is_the_same_for_the_same_identity_alone() {
    let name = sni(&shop("web"));
    assert_eq!(name, sni(&shop("web")));
    assert_ne!(name, sni(&shop("web2")));
    let (digits, suffix) = name.split_at(32);
    assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(suffix, ".identity.ambit.mesh");
    assert_eq!(identity_sni(&shop("web")).to_str(), name);
}

/// Connects with a server name (`None`: an address, so that none is sent) and accepts.
async fn accept(
    local: &ServerCertificates,
    mesh: &TestAuthority,
    name: Option<ServerName<'static>>,
    destination: Option<&Identity>,
) -> Result<Identity, AcceptError> {
    let (near, far) = duplex(64 * 1024);
    let config = client_config(&mesh.issue(&shop("client")), shop("web"), Protocols::Any);
    let name = name.unwrap_or_else(|| std::net::IpAddr::from([10, 0, 0, 1]).into());
    let connect = TlsConnector::from(config).connect(name, near);
    let (_connected, accepted) = tokio::join!(connect, async {
        local
            .accept(far, destination, Protocols::Any)
            .await
            .map(|accepted| accepted.client)
    });
    accepted
}

#[tokio::test]
async fn the_certificate_is_chosen_by_server_name_or_by_destination() {
    let mesh = Arc::new(TestAuthority::new());
    let source: Arc<dyn crate::identity::ca_client::CertificateSource> = mesh.clone();
    let local = ServerCertificates::new(crate::identity::Certificates::new(source));
    local.set_local([shop("web"), shop("other")]);
    let web = shop("web");
    let dns = |name: &str| Some(ServerName::try_from(name.to_owned()).unwrap());
    let ours = |account: &str| Some(identity_sni(&shop(account)));

    for (case, name, destination) in [
        ("our name", ours("web"), None),
        ("no name, captured for a pod", None, Some(&web)),
        (
            "another implementation's name, captured",
            dns("web.shop.svc"),
            Some(&web),
        ),
        ("both agree", ours("web"), Some(&web)),
    ] {
        let accepted = accept(&local, &mesh, name, destination).await;
        assert_eq!(accepted.ok(), Some(shop("client")), "{case}");
    }
    let error = accept(&local, &mesh, None, None).await.unwrap_err();
    assert!(matches!(error, AcceptError::NoServerName), "{error}");
    let error = accept(&local, &mesh, ours("gone"), None).await.unwrap_err();
    assert!(matches!(error, AcceptError::NotHere(_)), "{error}");
    let error = accept(&local, &mesh, ours("other"), Some(&web))
        .await
        .unwrap_err();
    assert!(
        matches!(error, AcceptError::OtherDestination { .. }),
        "{error}"
    );
    let error = accept(&local, &mesh, ours("other"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AcceptError::Peer(PeerError::RefusedByPeer(_))),
        "{error}"
    );
}
