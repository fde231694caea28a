use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures::{FutureExt, future::join_all};
use tokio::{
    io::{DuplexStream, duplex},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::hbone::{
    server::serve,
    testing::{TARGET, echo, exchange, in_a_minute, read_all},
};

#[derive(Debug, thiserror::Error)]
#[error("no route to host")]
struct NoRoute;

/// Connects to echo servers in this process.
#[derive(Default)]
struct Echoes {
    connects: AtomicUsize,
    /// How many connects may go on; `None`: all.
    gate: Option<Semaphore>,
    fails: bool,
    panics: bool,
    /// One for each server, in the order of connects.
    drains: StdMutex<Vec<CancellationToken>>,
}

impl Connector for Arc<Echoes> {
    type Io = DuplexStream;
    type Error = NoRoute;

    async fn connect(&self, _: &PoolKey) -> Result<DuplexStream, NoRoute> {
        self.connects.fetch_add(1, SeqCst);
        assert!(!self.panics, "this panic belongs to the test");
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.fails {
            return Err(NoRoute);
        }
        let (client, server) = duplex(64 * 1024);
        let drain = CancellationToken::new();
        self.drains.lock().unwrap().push(drain.clone());
        tokio::spawn(async move { serve(server, &Settings::default(), echo, drain).await });
        Ok(client)
    }
}

fn pool(connector: Echoes, settings: PoolSettings) -> (Pool<Arc<Echoes>>, Arc<Echoes>) {
    let connector = Arc::new(connector);
    (Pool::new(Arc::clone(&connector), settings), connector)
}

fn key(uid: &str) -> PoolKey {
    PoolKey {
        source: Identity::new("cluster.local", "shop", "client"),
        destination: Identity::new("cluster.local", "shop", "server"),
        uid: WorkloadUid(uid.into()),
        address: "192.0.2.1:15008".parse().unwrap(),
    }
}

async fn open(pool: &Pool<Arc<Echoes>>, key: &PoolKey) -> Result<HboneStream, PoolError<NoRoute>> {
    let authority = TARGET.parse().unwrap();
    let headers = RequestHeaders::default();
    pool.open(key, &authority, &headers, in_a_minute()).await
}

#[tokio::test]
async fn five_hundred_streams_share_five_tunnels() {
    let (pool, connector) = pool(Echoes::default(), PoolSettings::default());
    let key = key("a");
    let streams = join_all((0..500).map(|_| open(&pool, &key))).await;
    assert_eq!(connector.connects.load(SeqCst), 5);
    assert_eq!(pool.tunnels(), 5);
    let exchanges = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| async move {
            let data = vec![index.to_le_bytes()[0]; 10_000];
            assert!(
                exchange(&mut stream.unwrap(), &data).await == data,
                "stream {index}"
            );
        });
    join_all(exchanges).await;
}

#[tokio::test]
async fn another_life_of_the_pod_gets_another_tunnel() {
    let (pool, connector) = pool(Echoes::default(), PoolSettings::default());
    for uid in ["first", "second", "first", "second"] {
        open(&pool, &key(uid)).await.unwrap();
    }
    assert_eq!(connector.connects.load(SeqCst), 2);
}

#[tokio::test]
async fn callers_that_wait_for_one_attempt_share_its_failure() {
    let connector = Echoes {
        gate: Some(Semaphore::new(0)),
        fails: true,
        ..Echoes::default()
    };
    let (pool, connector) = pool(connector, PoolSettings::default());
    let key = key("a");
    let callers = join_all((0..50).map(|_| open(&pool, &key)));
    // Each of them has been polled, and waits, before the connector is let go.
    let release = async { connector.gate.as_ref().unwrap().add_permits(1) };
    let (results, ()) = tokio::join!(callers, release);
    for result in results {
        assert!(matches!(result, Err(PoolError::Connect(_))), "{result:?}");
    }
    assert_eq!(connector.connects.load(SeqCst), 1);
    assert_eq!(pool.tunnels(), 0);
    // A later caller makes an attempt of its own.
    connector.gate.as_ref().unwrap().add_permits(1);
    open(&pool, &key).await.unwrap_err();
    assert_eq!(connector.connects.load(SeqCst), 2);
}

#[tokio::test]
async fn a_connector_that_panics_leaves_nothing_behind() {
    let connector = Echoes {
        panics: true,
        ..Echoes::default()
    };
    let (pool, _) = pool(connector, PoolSettings::default());
    let result = open(&pool, &key("a")).await;
    assert!(matches!(result, Err(PoolError::Invalidated)), "{result:?}");
    assert_eq!(pool.tunnels(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_hangs_is_given_up() {
    let connector = Echoes {
        gate: Some(Semaphore::new(0)),
        ..Echoes::default()
    };
    let (pool, _) = pool(connector, PoolSettings::default());
    let error = open(&pool, &key("a")).await.unwrap_err();
    assert!(error.to_string().contains("NetworkPolicy"), "{error}");
    assert_eq!(pool.tunnels(), 0);
}

#[tokio::test]
async fn after_goaway_a_stream_gets_another_tunnel() {
    let (pool, connector) = pool(Echoes::default(), PoolSettings::default());
    let key = key("a");
    let mut old = open(&pool, &key).await.unwrap();
    connector.drains.lock().unwrap()[0].cancel();
    // Not yet told: this one is refused by the old tunnel, or finds it draining.
    let mut new = open(&pool, &key).await.unwrap();
    assert_eq!(exchange(&mut new, b"new").await, b"new");
    assert_eq!(exchange(&mut old, b"old").await, b"old");
    drop((old, new));
    open(&pool, &key).await.unwrap();
    assert_eq!(connector.connects.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_is_closed_and_a_used_one_is_kept() {
    let (pool, _) = pool(Echoes::default(), PoolSettings::default());
    let mut stream = open(&pool, &key("used")).await.unwrap();
    drop(open(&pool, &key("idle")).await.unwrap());
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(pool.tunnels(), 2);
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(pool.tunnels(), 1);
    assert_eq!(exchange(&mut stream, b"kept").await, b"kept");
    drop(stream);
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(pool.tunnels(), 0);
}

#[tokio::test]
async fn a_replaced_tunnel_serves_its_streams_to_their_end() {
    let (pool, connector) = pool(Echoes::default(), PoolSettings::default());
    let mut stream = open(&pool, &key("renewed")).await.unwrap();
    open(&pool, &key("stays")).await.unwrap();
    pool.replace(|key| &*key.uid.0 == "renewed");
    open(&pool, &key("renewed")).await.unwrap();
    open(&pool, &key("stays")).await.unwrap();
    assert_eq!(connector.connects.load(SeqCst), 3);
    assert_eq!(exchange(&mut stream, b"kept").await, b"kept");
}

#[tokio::test]
async fn closing_resets_streams_of_replaced_tunnels_too() {
    let (pool, _) = pool(Echoes::default(), PoolSettings::default());
    let mut forgotten = open(&pool, &key("gone")).await.unwrap();
    pool.replace(|_| true);
    let mut current = open(&pool, &key("gone")).await.unwrap();
    let mut other = open(&pool, &key("stays")).await.unwrap();
    pool.close_matching(|key| &*key.uid.0 == "gone");
    assert!(read_all(&mut forgotten).await.is_err());
    assert!(read_all(&mut current).await.is_err());
    assert_eq!(exchange(&mut other, b"kept").await, b"kept");
}

#[tokio::test]
async fn an_attempt_is_called_off_when_its_workload_goes_and_not_when_a_certificate_is_renewed() {
    type Change = fn(&Pool<Arc<Echoes>>);
    let table: [(Change, bool); 2] = [
        (|pool| pool.close_matching(|_| true), true),
        (|pool| pool.replace(|_| true), false),
    ];
    for (change, called_off) in table {
        let connector = Echoes {
            gate: Some(Semaphore::new(0)),
            ..Echoes::default()
        };
        let (pool, connector) = pool(connector, PoolSettings::default());
        let key = key("a");
        let change = async {
            change(&pool);
            connector.gate.as_ref().unwrap().add_permits(1);
        };
        let (result, ()) = tokio::join!(open(&pool, &key), change);
        match result {
            Err(PoolError::Invalidated) => assert!(called_off),
            other => assert!(other.is_ok() && !called_off, "{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_bound_costs_idle_tunnels_first() {
    let settings = PoolSettings {
        max_tunnels: 2,
        ..PoolSettings::default()
    };
    let (pool, _) = pool(Echoes::default(), settings);
    let _used = open(&pool, &key("used")).await.unwrap();
    drop(open(&pool, &key("idle")).await.unwrap());
    let _third = open(&pool, &key("third")).await.unwrap();
    let error = open(&pool, &key("fourth")).await.unwrap_err();
    assert!(matches!(error, PoolError::TooManyTunnels(2)), "{error}");
    open(&pool, &key("used")).await.unwrap();
}

#[tokio::test]
async fn drain_waits_for_the_last_stream() {
    let (pool, _) = pool(Echoes::default(), PoolSettings::default());
    let mut stream = open(&pool, &key("a")).await.unwrap();
    let mut drained = std::pin::pin!(pool.drain());
    assert!(drained.as_mut().now_or_never().is_none());
    let error = open(&pool, &key("a")).await.unwrap_err();
    assert!(matches!(error, PoolError::Draining), "{error}");
    assert_eq!(exchange(&mut stream, b"last").await, b"last");
    assert!(drained.as_mut().now_or_never().is_none());
    drop(stream);
    drained.await;
    assert_eq!(pool.tunnels(), 0);
}
