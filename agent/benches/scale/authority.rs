//! What one certificate costs the authority: by itself, and over the wire on one core.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ambit::identity::{
    authority::{CertificateAuthority, Settings},
    ca_client::{self, CaClient, CertificateSource as _},
    ca_service::{self, CallerAuthenticator as _, NodeAuthorizer as _, TokenFile},
    request::{CertificateRequest, NewRequest},
};
use ambit::telemetry::control::Tally;
use criterion::{BenchmarkId, Criterion};
use futures::StreamExt as _;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

use super::{
    fleet::{self, NODES},
    processor_time::{self, ProcessorTime},
};

/// Calls that are timed, and how many of them at a time.
const CALLS: usize = 3_000;
const AT_A_TIME: usize = 16;
/// Calls that come at one moment: more than the server has connections for, so that they queue.
const BURST: usize = 2_500;

pub(crate) fn bench(criterion: &mut Criterion<ProcessorTime>, sizes: &[usize]) {
    let cluster = Cluster::new();
    let identity = fleet::identity(0);
    let request = NewRequest::generate(&identity).expect("a request can be made");

    let mut group = criterion.benchmark_group("certificate");
    group.bench_function("request, made by an agent", |bencher| {
        bencher.iter(|| NewRequest::generate(&identity));
    });
    group.bench_function("request, read and checked", |bencher| {
        bencher.iter(|| CertificateRequest::parse(&request.pem));
    });
    let parsed = CertificateRequest::parse(&request.pem).expect("it was made by us");
    group.bench_function("signature", |bencher| {
        bencher.iter(|| {
            let now = SystemTime::now();
            cluster.authority.sign(&parsed, &identity, None, now)
        });
    });
    group.bench_function("token, one of 1,000", |bencher| {
        let (runtime, token) = (runtime(), token(NODES / 2));
        bencher.iter(|| runtime.block_on(cluster.tokens.authenticate(&token)));
    });
    for &size in sizes {
        let store = fleet::store(size);
        let last = size - 1;
        let (identity, node) = (fleet::identity(last), fleet::node(last));
        group.bench_function(BenchmarkId::new("may the node ask", size), |bencher| {
            bencher.iter(|| assert!(store.runs_on(&identity, &node)));
        });
    }
    group.finish();
    if !cfg!(debug_assertions) {
        cluster.over_the_wire(sizes.last().copied().unwrap_or(NODES));
    }
}

/// An authority with the tokens of all nodes.
struct Cluster {
    directory: tempfile::TempDir,
    authority: Arc<CertificateAuthority>,
    tokens: Arc<TokenFile>,
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = directory.path().join("ca");
        let authority = CertificateAuthority::open(&state, Settings::default(), SystemTime::now());
        let lines: String = (0..NODES)
            .map(|number| format!("{},{}\n", token(number), fleet::node(number)))
            .collect();
        let tokens = secret(directory.path().join("tokens"), &lines);
        Self {
            authority: Arc::new(authority.expect("the state directory is new")),
            tokens: Arc::new(TokenFile::open(&tokens).expect("the tokens are well-formed")),
            directory,
        }
    }

    /// TLS, HTTP/2 and all checks included. The server has one thread, the agents another.
    fn over_the_wire(&self, workloads: usize) {
        let [server, agents] = [runtime(), runtime()];
        let listener = server.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let stop = CancellationToken::new();
        let settings = ca_service::Settings {
            server_names: vec!["127.0.0.1".to_owned()],
        };
        let store = Arc::new(fleet::store(workloads));
        let parts = ca_service::Parts {
            authority: self.authority.clone(),
            authenticator: self.tokens.clone(),
            authorizer: store,
            reports: None,
            counts: Tally::default(),
        };
        let serving = ca_service::serve(settings, parts, listener, stop.clone());
        let serving = server.spawn(serving);
        let token_file = secret(self.directory.path().join("token"), &token(0));
        let client = CaClient::new(ca_client::Settings {
            address,
            server_name: None,
            root_file: self.directory.path().join("ca/trust-bundle.pem"),
            token_file,
            validity: Duration::from_secs(24 * 3600),
        });

        for (what, calls, at_a_time) in
            [("steady", CALLS, AT_A_TIME), ("all at once", BURST, BURST)]
        {
            let before = used(&server);
            let begun = Instant::now();
            let failed = agents.block_on(fetch(&client, calls, at_a_time));
            let (took, used) = (begun.elapsed(), used(&server).saturating_sub(before));
            println!(
                "certificate/over the wire, {what}: {calls} calls, {at_a_time} at a time, {} \
                 failed, {took:?}, {:?} of the server's core each",
                failed.len(),
                used / u32::try_from(calls).expect("some thousand"),
            );
            if let Some(error) = failed.first() {
                println!("    {error}");
            }
        }
        stop.cancel();
        let served = server.block_on(serving).expect("the server didn't panic");
        served.expect("the server has a certificate");
    }
}

/// What failed.
async fn fetch(client: &CaClient, calls: usize, at_a_time: usize) -> Vec<ca_client::Error> {
    // Pods of the first node, whose token it is.
    let identities: Vec<_> = (0..calls)
        .map(|call| fleet::identity(call % 100 * NODES))
        .collect();
    futures::stream::iter(&identities)
        .map(|identity| client.fetch(identity))
        .buffer_unordered(at_a_time)
        .filter_map(|result| async { result.err() })
        .collect()
        .await
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started")
}

/// What the runtime's one worker has used.
fn used(runtime: &Runtime) -> Duration {
    let read = runtime.spawn(async { processor_time::now() });
    runtime.block_on(read).expect("it doesn't panic")
}

fn token(node: usize) -> String {
    format!("token-of-node-{node:060}")
}

fn secret(path: PathBuf, text: &str) -> PathBuf {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600);
    let written = file
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.expect("a temporary file can be written");
    path
}
