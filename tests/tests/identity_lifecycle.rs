//! Identities over time: addresses that change hands, certificates and roots that are renewed, an
//! authority that goes away.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it didn't expect has failed"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use ambit::identity::{
    Identity,
    ca_client::{CaClient, CertificateSource as _, Error, Settings},
};
use lab::{Lab, Mesh, Node, Pod, PodSpec, Result, RunningMesh, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const ECHO: [&str; 3] = ["echo-server", "--listen", "0.0.0.0:80"];

fn spec(account: &str) -> PodSpec {
    PodSpec::in_namespace("shop")
        .service_account(account)
        .label("app", account)
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

/// A connection from a pod, whose other end echoes.
struct Connection(TcpStream);

impl Connection {
    fn open(client: &Pod, server: &str) -> Result<Self> {
        let stream = client.in_namespace(|| TcpStream::connect(server))?.unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Ok(Self(stream))
    }

    fn echo(&mut self) -> std::io::Result<()> {
        self.0.write_all(b"hello")?;
        let mut heard = [0; 5];
        self.0.read_exact(&mut heard)?;
        assert_eq!(heard, *b"hello");
        Ok(())
    }
}

/// Traffic that goes on while something changes: a connection that stays, and new ones.
struct Traffic<'a> {
    client: &'a Pod,
    server: String,
    lasting: Connection,
    rounds: usize,
}

impl<'a> Traffic<'a> {
    fn start(client: &'a Pod, server: &Pod) -> Result<Self> {
        let at = server.at(80).to_string();
        let lasting = Connection::open(client, &at)?;
        Ok(Self {
            client,
            server: at,
            lasting,
            rounds: 0,
        })
    }

    /// Loses nothing until `done`, which is asked now and then.
    fn until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        eventually(what, DEADLINE, || {
            self.rounds += 1;
            self.lasting
                .echo()
                .unwrap_or_else(|error| panic!("{what}: old connection: {error}"));
            let new = Connection::open(self.client, &self.server).unwrap().echo();
            new.unwrap_or_else(|error| panic!("{what}: new connection: {error}"));
            self.rounds.is_multiple_of(20) && done()
        });
    }
}

/// Serial numbers of a node's certificates, by identity.
fn serials(node: &Node) -> BTreeMap<String, String> {
    let told = node.admin("/certificates").unwrap();
    let list = told
        .as_array()
        .or_else(|| told["certificates"].as_array())
        .unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|entry| (text(&entry["identity"]), text(&entry["serial"])))
        .collect()
}

#[test]
fn who_gets_an_address_after_another_gets_nothing_of_its_identity() -> Result<()> {
    let lab = Lab::builder("reuse").build()?;
    lab.namespace("shop").enrolled()?;
    lab.apply(
        "policy.yaml",
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: buyers-only, namespace: shop }
spec:
  selector: { matchLabels: { app: till } }
  action: ALLOW
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/buyer] } }] }]
",
    )?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let buyer = a.pod("buyer", spec("buyer"))?;
    let till = b.pod("till", spec("till"))?;
    let mut served = till.peer_server(ECHO)?;
    let mut mesh = Mesh::default().start(&lab)?;
    let at = till.at(80).to_string();
    let mut old = Connection::open(&buyer, &at)?;
    old.echo().unwrap();

    // The client's address changes hands.
    let address = buyer.address();
    buyer.delete()?;
    let report = served.await_reports(1, DEADLINE)?.remove(0);
    assert_eq!(report["end"], "reset", "{report}");
    let thief = a.pod("thief", spec("thief").address(address))?;
    let told = thief.peer(["observe-client", "--connect", &at])?;
    assert_eq!(told["end"], "reset", "{told}");
    mesh.agent("b").await_stderr(DEADLINE, |line| {
        line.contains("connection denied") && line.contains(&identity("thief").to_string())
    })?;
    assert_eq!(served.reports()?.len(), 1);

    // So does the server's, and nobody needs to be a buyer to reach the next one. The old server
    // doesn't close its connection, since its socket is the test's.
    let buyer = a.pod("buyer", spec("buyer"))?;
    let listener = till
        .in_namespace(|| TcpListener::bind(till.at(81)))?
        .unwrap();
    let mut old = Connection::open(&buyer, &till.at(81).to_string())?;
    let _held = listener.accept().unwrap();
    let address = till.address();
    till.delete()?;
    let ended = old.0.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    // Whichever agent is the first to know ends it, and tells the other.
    eventually("the reason in a log", DEADLINE, || {
        ["a", "b"].iter().any(|node| {
            let log = mesh.agent(node).stderr();
            log.lines().any(|line| {
                line.contains("connection failed") && line.contains("workload shop/till is gone")
            })
        })
    });
    let next = b.pod("next", spec("next").address(address))?;
    let mut served = next.peer_server(ECHO)?;
    // The clients' agent may know of it a moment earlier, and would find no certificate there.
    mesh.agent("b").await_stderr(DEADLINE, |line| {
        line.contains("pod interface pod=shop/next")
    })?;
    for client in [&buyer, &thief] {
        Connection::open(client, &at)?.echo().unwrap();
    }
    served.await_reports(2, DEADLINE)?;
    for (node, account) in [
        ("a", "buyer"),
        ("a", "thief"),
        ("b", "buyer"),
        ("b", "thief"),
    ] {
        mesh.agent(node).await_stderr(DEADLINE, |line| {
            line.contains("connection complete")
                && line.contains(&format!("src.identity={}", identity(account)))
                && line.contains(&format!("dst.identity={}", identity("next")))
        })?;
    }
    Ok(())
}

/// A pod on each node that talk to each other.
fn pair(lab: &Lab) -> Result<(Pod, Pod, lab::PeerServer)> {
    lab.namespace("shop").enrolled()?;
    let buyer = lab.node("a").pod("buyer", spec("buyer"))?;
    let till = lab.node("b").pod("till", spec("till"))?;
    let served = till.peer_server(ECHO)?;
    Ok((buyer, till, served))
}

#[test]
fn certificates_are_renewed_under_traffic_and_nothing_is_lost() -> Result<()> {
    let lab = Lab::builder("renewal").build()?;
    let (buyer, till, _served) = pair(&lab)?;
    let _mesh = Mesh::default().certificate_ttl("10s").start(&lab)?;
    let mut wire = lab.node("b").capture(
        lab::NODE_INTERFACE,
        "dst port 15008 and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    )?;
    let mut traffic = Traffic::start(&buyer, &till)?;
    for renewal in 0..2 {
        let before = lab.nodes().iter().map(serials).collect::<Vec<_>>();
        traffic.until(&format!("renewal {renewal}"), || {
            lab.nodes().iter().zip(&before).all(|(node, before)| {
                let now = serials(node);
                assert_eq!(now.len(), 1, "{now:?}");
                now.iter()
                    .all(|(identity, serial)| before.get(identity) != Some(serial))
            })
        });
    }
    // Tunnels followed: each renewal of the client's brought another handshake.
    traffic.until("new tunnels", || wire.packets().unwrap().len() >= 3);
    Ok(())
}

#[test]
fn roots_are_rotated_under_traffic_and_the_old_one_is_dropped() -> Result<()> {
    let lab = Lab::builder("roots").build()?;
    let (buyer, till, _served) = pair(&lab)?;
    let arguments = [
        "--root-ttl",
        "20s",
        "--root-overlap",
        "6s",
        "--rotate-before",
        "12s",
    ];
    let mesh = Mesh::default()
        .certificate_ttl("6s")
        .control_arguments(&arguments)
        .start(&lab)?;
    let first = roots(&mesh);
    assert_eq!(first.len(), 1);
    let mut traffic = Traffic::start(&buyer, &till)?;
    let mut seen = Vec::new();
    traffic.until("the first root to be dropped", || {
        let now = roots(&mesh);
        let is_first = |root: &String| *root == first[0];
        let stage = match (now.iter().position(is_first), now.len()) {
            (Some(0), 1) => "alone",
            (Some(0), _) => "before its successor",
            (Some(_), _) => "after its successor",
            (None, _) => "dropped",
        };
        if seen.last() != Some(&stage) {
            seen.push(stage);
        }
        stage == "dropped"
    });
    let stages = [
        "alone",
        "before its successor",
        "after its successor",
        "dropped",
    ];
    assert!(stages.ends_with(&seen) && seen.len() >= 3, "{seen:?}");
    Ok(())
}

/// The roots of the trust bundle, in its order.
fn roots(mesh: &RunningMesh<'_>) -> Vec<String> {
    let text = fs::read_to_string(mesh.state_directory().join("trust-bundle.pem")).unwrap();
    text.split_inclusive("-----END CERTIFICATE-----\n")
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_the_authority_valid_certificates_serve_on_until_it_is_back() -> Result<()> {
    let lab = Lab::builder("away").build()?;
    let (buyer, till, _served) = pair(&lab)?;
    let mut mesh = Mesh::default().certificate_ttl("20s").start(&lab)?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let failures = |node: &Node| {
        node.metric("ambit_certificate_renewal_failures_total", &[])
            .unwrap()
    };
    eventually("the first certificates", DEADLINE, || {
        [a, b]
            .iter()
            .all(|node| serials(node).values().all(|serial| !serial.is_empty()))
    });
    let before = [serials(a), serials(b)];
    let (keys, bundle) = (private_files(mesh.state_directory()), roots(&mesh));
    assert!(keys.len() >= 2, "records and a key: {keys:?}");

    mesh.kill_control();
    let mut traffic = Traffic::start(&buyer, &till)?;
    traffic.until("renewals to fail", || {
        failures(a) > 0.0 && failures(b) > 0.0
    });
    assert_eq!([serials(a), serials(b)], before);

    mesh.start_control()?;
    traffic.until("renewals to succeed", || {
        [a, b].iter().zip(&before).all(|(node, before)| {
            serials(node)
                .iter()
                .all(|(identity, serial)| before.get(identity) != Some(serial))
        })
    });
    // The same root, from the same files.
    assert_eq!(roots(&mesh), bundle);
    assert_eq!(private_files(mesh.state_directory()), keys);
    Ok(())
}

/// What the authority keeps to itself, and that it does.
fn private_files(state: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(state), 0o700);
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        if ["trust-bundle.pem", "lock"]
            .iter()
            .all(|public| !path.ends_with(public))
        {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            let text = fs::read(&path).unwrap();
            files.insert(path, text);
        }
    }
    files
}

#[test]
fn a_node_gets_certificates_for_its_own_workloads_alone() -> Result<()> {
    let lab = Lab::builder("authorised").build()?;
    let (buyer, _till, _served) = pair(&lab)?;
    let mesh = Mesh::default().start(&lab)?;
    let secret = |name: &str, text: &str| -> PathBuf {
        let path = lab.directory().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let wrong = secret("token-wrong", "token-of-nobody");
    let empty = secret("token-empty", "");
    let of_a = lab.directory().join("token-a");
    let bundle = mesh.state_directory().join("trust-bundle.pem");
    let ask = |token: &Path, identity: &Identity| {
        let client = CaClient::new(Settings {
            address: mesh.ca_address().to_string(),
            server_name: None,
            root_file: bundle.clone(),
            token_file: token.to_owned(),
            validity: Duration::from_secs(60),
        });
        let call = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(client.fetch(identity))
        };
        lab.node("a").in_namespace(call).unwrap()
    };
    let not_authorised = |error: &Error| matches!(error, Error::NotAuthorised { .. });
    let token_refused = |error: &Error| matches!(error, Error::TokenRefused { .. });
    let no_token = |error: &Error| matches!(error, Error::File { .. });
    type Check<'a> = &'a dyn Fn(&Error) -> bool;
    let elsewhere = Identity::new("elsewhere.example", "shop", "buyer");
    let table: [(&Path, Identity, Check<'_>); 6] = [
        (&of_a, identity("till"), &not_authorised),
        (&of_a, identity("nobody"), &not_authorised),
        (&of_a, elsewhere, &not_authorised),
        (&wrong, identity("buyer"), &token_refused),
        (&wrong, identity("till"), &token_refused),
        (&empty, identity("buyer"), &no_token),
    ];
    for (token, identity, check) in table {
        let error = ask(token, &identity).expect_err(&identity.to_string());
        assert!(check(&error), "{} {identity}: {error}", token.display());
    }

    let given = ask(&of_a, &identity("buyer")).unwrap();
    assert_eq!(*given.identity(), identity("buyer"));
    // Only for as long as it runs there.
    buyer.delete()?;
    eventually("the identity to be refused", DEADLINE, || {
        ask(&of_a, &identity("buyer")).is_err_and(|error| not_authorised(&error))
    });
    Ok(())
}
