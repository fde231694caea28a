use std::{collections::HashSet, fs, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

use super::*;
use crate::discovery::model::ObjectName;
use crate::identity::{
    Certificates,
    ca_client::{self, CaClient, CertificateSource, Error},
    files,
    request::NewRequest,
    testing::{TestAuthority, shop},
    tls::{self, ServerCertificates},
    wire::{CREATE_CERTIFICATE, MAX_MESSAGE},
};

mod reports;
mod waypoints;

/// Says who runs where.
struct Placement(HashSet<(Identity, &'static str)>);

impl NodeAuthorizer for Placement {
    fn runs_on(&self, identity: &Identity, node: &str) -> bool {
        self.0
            .iter()
            .any(|(local, at)| local == identity && *at == node)
    }

    fn is_waypoint(&self, identity: &Identity, gateway: &ObjectName) -> bool {
        let own = (identity.namespace(), identity.service_account());
        own == (&*gateway.namespace, &*gateway.name)
    }
}

fn placement() -> Arc<Placement> {
    Arc::new(Placement(
        [(shop("web"), "node-a"), (shop("db"), "node-b")].into(),
    ))
}

/// A token file with a token for each of two nodes.
fn token_file(mesh: &TestAuthority) -> Arc<TokenFile> {
    let path = mesh.directory.path().join("tokens.csv");
    files::write_atomically(&path, "token-a,node-a\ntoken-b,node-b\n", 0o600).unwrap();
    Arc::new(TokenFile::open(&path).unwrap())
}

/// A whole authority on a local port, stopped when dropped.
struct Control {
    mesh: TestAuthority,
    address: SocketAddr,
    served: JoinHandle<Result<(), authority::Error>>,
    stop: DropGuard,
}

impl Control {
    async fn start() -> Self {
        Self::taking(None).await
    }

    async fn taking(reports: Option<Arc<dyn PodReports>>) -> Self {
        let mesh = TestAuthority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(
            Settings {
                server_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            },
            Parts {
                authority: Arc::clone(&mesh.authority),
                authenticator: waypoints::callers(&mesh),
                authorizer: placement(),
                reports,
                counts: Tally::default(),
            },
            listener,
            stop.clone(),
        ));
        Self {
            mesh,
            address,
            served,
            stop: stop.drop_guard(),
        }
    }

    fn settings(&self, token: &str) -> ca_client::Settings {
        let token_file = self.mesh.directory.path().join(token);
        fs::write(&token_file, format!("{token}\n")).unwrap();
        ca_client::Settings {
            address: self.address.to_string(),
            server_name: None,
            root_file: self.mesh.root_file(),
            token_file,
            validity: Duration::from_secs(600),
        }
    }

    fn client(&self, token: &str) -> CaClient {
        CaClient::new(self.settings(token))
    }
}

#[tokio::test]
async fn two_nodes_get_certificates_and_open_a_tunnel() {
    let control = Control::start().await;
    let node_a = Certificates::new(Arc::new(control.client("token-a")));
    let node_b = Certificates::new(Arc::new(control.client("token-b")));
    let own = node_a.certificate(&shop("web")).await.unwrap();
    let local = ServerCertificates::new(node_b);
    local.set_local([shop("db")]);

    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = tokio_rustls::TlsConnector::from(tls::client_config(
        &own,
        shop("db"),
        tls::Protocols::Http2,
    ));
    let (connected, accepted) = tokio::join!(
        connector.connect(tls::identity_sni(&shop("db")), near),
        local.accept(far, None, tls::Protocols::Any)
    );
    let accepted = accepted.unwrap();
    assert_eq!(accepted.client, shop("web"));
    assert_eq!(accepted.server, shop("db"));
    let connected = connected.unwrap();
    let shown = connected.get_ref().1.peer_certificates().unwrap();
    assert_eq!(tls::peer_identity(shown), Ok(shop("db")));
}

#[tokio::test]
async fn the_server_stops_when_told() {
    let control = Control::start().await;
    control.client("token-a").fetch(&shop("web")).await.unwrap();
    drop(control.stop);
    control.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_authority_refuses_reaches_the_operator_in_words() {
    let control = Control::start().await;
    let stranger = TestAuthority::new();
    type Change = Box<dyn Fn(&mut ca_client::Settings)>;
    let set_root = |path: PathBuf| -> Change { Box::new(move |to| to.root_file = path.clone()) };
    let unchanged = || -> Change { Box::new(|_| {}) };
    let unused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let cases: [(&str, &str, Change, &str); 8] = [
        ("unknown token", "wrong", unchanged(), "refused the token"),
        (
            "other node",
            "token-b",
            unchanged(),
            "known to run on node node-b",
        ),
        (
            "foreign root",
            "token-a",
            set_root(stranger.root_file()),
            "doesn't verify",
        ),
        (
            "no root file",
            "token-a",
            set_root("/nonexistent".into()),
            "root file /nonexistent",
        ),
        (
            "empty root file",
            "token-a",
            set_root("/dev/null".into()),
            "no PEM certificate",
        ),
        (
            "no token",
            "token-a",
            Box::new(|to| to.token_file = "/dev/null".into()),
            "token file /dev/null",
        ),
        (
            "other name",
            "token-a",
            Box::new(|to| to.server_name = Some("istiod".to_owned())),
            "as istiod",
        ),
        (
            "nobody there",
            "token-a",
            Box::new(move |to| to.address = unused.clone()),
            "unreachable at 127.0.0.1",
        ),
    ];
    for (case, token, change, expected) in cases {
        let mut settings = control.settings(token);
        change(&mut settings);
        let error = CaClient::new(settings)
            .fetch(&shop("web"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{case}: {error}");
    }
}

#[tokio::test]
async fn a_new_root_file_and_token_are_used_without_restart() {
    let control = Control::start().await;
    let mut settings = control.settings("token-b");
    settings.root_file = control.mesh.directory.path().join("roots.pem");
    fs::write(
        &settings.root_file,
        TestAuthority::new().authority.trust_bundle(),
    )
    .unwrap();
    let client = CaClient::new(settings.clone());
    let error = client.fetch(&shop("web")).await.unwrap_err();
    assert!(matches!(error, Error::NotTrusted { .. }), "{error}");
    fs::copy(control.mesh.root_file(), &settings.root_file).unwrap();
    let error = client.fetch(&shop("web")).await.unwrap_err();
    assert!(matches!(error, Error::NotAuthorised { .. }), "{error}");
    fs::write(&settings.token_file, "token-a").unwrap();
    client.fetch(&shop("web")).await.unwrap();
}

fn services(mesh: &TestAuthority) -> server::Services {
    server::Services {
        certificates: service(mesh),
        reports: None,
    }
}

fn service(mesh: &TestAuthority) -> CertificateService {
    CertificateService {
        authority: Arc::clone(&mesh.authority),
        authenticator: waypoints::callers(mesh),
        authorizer: placement(),
        counts: Tally::default(),
    }
}

/// Calls the service as a connection would.
async fn call(
    token: Option<&str>,
    message: CertificateSigningRequest,
) -> Result<Vec<String>, Status> {
    let mesh = TestAuthority::new();
    let mut request = Request::new(message);
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
    }
    let response = service(&mesh).create(request).await?;
    Ok(response.into_inner().cert_chain)
}

#[tokio::test]
async fn each_fault_of_a_call_has_its_status_and_its_cause() {
    let csr = |account: &str| NewRequest::generate(&shop(account)).unwrap().pem;
    let asking = |csr: String, seconds: i64, identity: &str| {
        CertificateSigningRequest::new(csr, seconds, identity.to_owned())
    };
    let web = shop("web").to_string();
    let plain = |csr: String| CertificateSigningRequest {
        csr,
        ..Default::default()
    };
    let foreign = "spiffe://elsewhere/ns/shop/sa/web";
    let good = Some("Bearer token-a");
    for (case, token, message, expected) in [
        ("with metadata", good, asking(csr("web"), 60, &web), None),
        ("named by the request alone", good, plain(csr("web")), None),
        (
            "no token",
            None,
            asking(csr("web"), 60, &web),
            Some((Code::Unauthenticated, "no authorization")),
        ),
        (
            "another scheme",
            Some("Basic token-a"),
            asking(csr("web"), 60, &web),
            Some((Code::Unauthenticated, "Bearer")),
        ),
        (
            "wrong token, and a garbage request that isn't looked at",
            Some("Bearer wrong"),
            plain("garbage".to_owned()),
            Some((Code::Unauthenticated, "not in the token file")),
        ),
        (
            "other node's identity",
            good,
            asking(csr("db"), 60, &shop("db").to_string()),
            Some((
                Code::PermissionDenied,
                "shop/sa/db is known to run on node node-a",
            )),
        ),
        (
            "other trust domain",
            good,
            asking(csr("web"), 60, foreign),
            Some((Code::PermissionDenied, "elsewhere")),
        ),
        (
            "request for another identity than the metadata",
            good,
            asking(csr("db"), 60, &web),
            Some((Code::InvalidArgument, "sa/db")),
        ),
        (
            "garbage request",
            good,
            asking("garbage".to_owned(), 60, &web),
            Some((Code::InvalidArgument, "not readable")),
        ),
        (
            "garbage identity",
            good,
            asking(csr("web"), 60, "web"),
            Some((Code::InvalidArgument, "ImpersonatedIdentity")),
        ),
        (
            "negative life",
            good,
            asking(csr("web"), -1, &web),
            Some((Code::InvalidArgument, "validity_duration")),
        ),
    ] {
        match (call(token, message).await, expected) {
            (Ok(chain), None) => assert_eq!(chain.len(), 2, "{case}"),
            (Err(status), Some((code, words))) => {
                assert_eq!(status.code(), code, "{case}: {status}");
                assert!(status.message().contains(words), "{case}: {status}");
            }
            (outcome, _) => panic!("{case}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn the_server_reads_one_method_and_no_more_than_the_limit() {
    let web = shop("web").to_string();
    let of_size = |padding: usize| {
        let csr = NewRequest::generate(&shop("web")).unwrap().pem + &"\n".repeat(padding);
        CertificateSigningRequest::new(csr, 60, web.clone()).encode_to_vec()
    };
    for (case, path, message, expected) in [
        ("as due", CREATE_CERTIFICATE, of_size(0), Code::Ok),
        (
            "too large",
            CREATE_CERTIFICATE,
            of_size(MAX_MESSAGE),
            Code::OutOfRange,
        ),
        (
            "garbage",
            CREATE_CERTIFICATE,
            b"garbage".to_vec(),
            Code::Internal,
        ),
        (
            "another method",
            "/grpc.health.v1.Health/Check",
            of_size(0),
            Code::Unimplemented,
        ),
    ] {
        let mesh = TestAuthority::new();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .header("authorization", "Bearer token-a")
            .body(Full::new(Bytes::from(frame)))
            .unwrap();
        let response = server::answer(services(&mesh), request).await.unwrap();
        // A failure has its status in the headers, a success in the trailers.
        let status = match Status::from_header_map(response.headers()) {
            Some(status) => status,
            None => {
                let body = response.into_body().collect().await.unwrap();
                Status::from_header_map(body.trailers().unwrap()).unwrap()
            }
        };
        assert_eq!(status.code(), expected, "{case}: {status}");
    }
}
