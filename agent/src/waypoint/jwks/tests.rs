//! When keys are fetched, and that they are.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

use super::{KeyCache, Settings, State, Step};
use crate::policy::{
    jwt::{
        KeySet,
        testing::{Signer, key_set},
    },
    model::KeySource,
};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn keys_are_fetched_when_they_are_due_and_not_more_often() {
    let settings = Settings::default();
    let start = Instant::now();
    let now = start + Duration::from_secs(10_000);
    let before = |seconds: u64| Some(now - Duration::from_secs(seconds));
    let set = KeySet::read(key_set(&[Signer::new("a").jwk()]).as_bytes()).unwrap();
    let keys = Some(Arc::new(set));
    let nothing = (false, false);
    // Keys, fetched, attempted, being fetched, unknown key: starts, waits.
    for (keys, fetched, attempted, is_fetching, unknown_key, (starts, waits)) in [
        (&None, None, None, false, false, (true, true)),
        (&None, None, before(0), true, false, (false, true)),
        (&None, None, before(0), false, false, nothing),
        (&None, None, before(1), false, false, (true, true)),
        (&keys, before(299), before(299), false, false, nothing),
        (&keys, before(300), before(300), false, false, (true, false)),
        (&keys, before(300), before(0), true, false, nothing),
        (&keys, before(300), before(0), false, false, nothing),
        (&keys, before(600), before(600), false, false, (true, true)),
        (&keys, before(600), before(0), true, false, (false, true)),
        (&keys, before(600), before(0), false, false, nothing),
        (&keys, before(9), before(9), false, true, nothing),
        (&keys, before(10), before(10), false, true, (true, true)),
        (&keys, before(99), before(9), false, true, nothing),
        (&keys, before(99), before(9), true, true, (false, true)),
    ] {
        let state = State {
            keys: keys.clone(),
            fetched,
            attempted,
            is_fetching,
            used: start,
        };
        let step = state.step(&settings, now, unknown_key);
        assert_eq!(
            step,
            Step { starts, waits },
            "{fetched:?} {attempted:?} {is_fetching} {unknown_key}"
        );
    }
}

/// An issuer whose answer can be changed, and that counts requests for its keys.
struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((StatusCode::OK, keys)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answers, counts) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answers, counts) = (answers.clone(), counts.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (status, body) = if request.uri().path() == "/keys" {
                        counts.fetch_add(1, Ordering::SeqCst);
                        answers.lock().unwrap().clone()
                    } else {
                        let document = json!({ "jwks_uri": format!("http://{address}/keys") });
                        (StatusCode::OK, document.to_string())
                    };
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status;
                    async { Ok::<_, Infallible>(response) }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        Self {
            address,
            answer,
            asked,
        }
    }

    fn says(&self, status: StatusCode, body: String) {
        *self.answer.lock().unwrap() = (status, body);
    }

    fn keys(&self) -> KeySource {
        KeySource::Url(format!("http://{}/keys", self.address).into())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// No pauses, so that a test needn't wait.
const EAGER: Settings = Settings {
    refresh: Duration::ZERO,
    stale: Duration::ZERO,
    retry: Duration::ZERO,
    unknown_key: Duration::ZERO,
};

fn keys(signers: &[&Signer]) -> (String, KeySet) {
    let jwks: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    let text = key_set(&jwks);
    let read = KeySet::read(text.as_bytes()).unwrap();
    (text, read)
}

#[tokio::test]
async fn keys_are_fetched_once_and_rotated_ones_on_demand() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (first, first_keys) = keys(&[&old]);
    let (second, second_keys) = keys(&[&new]);
    let issuer = Issuer::start(first).await;
    let cache = KeyCache::new(Settings {
        unknown_key: Duration::ZERO,
        ..Settings::default()
    });
    let source = issuer.keys();
    for _ in 0..3 {
        let told = cache.keys(&source, PATIENCE).await;
        assert_eq!(told.as_deref(), Some(&first_keys));
    }
    assert_eq!(issuer.asked(), 1);
    issuer.says(StatusCode::OK, second);
    let told = cache.newer(&source, PATIENCE).await;
    assert_eq!(told.as_deref(), Some(&second_keys));
    assert_eq!(issuer.asked(), 2);
    // A key that is gone from the set verifies nothing any more.
    let told = cache.keys(&source, PATIENCE).await;
    assert_eq!(told.as_deref(), Some(&second_keys));
}

#[tokio::test]
async fn requests_that_wait_share_one_fetch() {
    let issuer = Issuer::start(keys(&[&Signer::new("a")]).0).await;
    let cache = KeyCache::default();
    let source = issuer.keys();
    let asks = (0..20).map(|_| cache.keys(&source, PATIENCE));
    let told = futures::future::join_all(asks).await;
    assert!(told.iter().all(Option::is_some));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn the_last_good_keys_serve_on() {
    let (text, set) = keys(&[&Signer::new("a")]);
    let issuer = Issuer::start(text).await;
    let cache = KeyCache::new(EAGER);
    let source = issuer.keys();
    assert!(cache.keys(&source, PATIENCE).await.is_some());
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "broken".to_owned()),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, "{\"keys\": []}".to_owned()),
        (StatusCode::OK, " ".repeat(2 << 20)),
    ] {
        let before = issuer.asked();
        issuer.says(status, body);
        let told = cache.keys(&source, PATIENCE).await;
        assert_eq!(told.as_deref(), Some(&set));
        assert!(issuer.asked() > before);
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_gives_no_keys_and_holds_up_nobody_else() {
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", silent.local_addr().unwrap());
    let source = KeySource::Url(url.into());
    let good = Issuer::start(keys(&[&Signer::new("a")]).0).await;
    let cache = KeyCache::default();
    let waiting = cache.keys(&source, Duration::from_millis(100));
    let known = good.keys();
    let (none, some) = tokio::join!(waiting, cache.keys(&known, PATIENCE));
    assert!(none.is_none() && some.is_some());
}

#[tokio::test]
async fn an_issuer_tells_where_its_keys_are() {
    let (text, set) = keys(&[&Signer::new("a")]);
    let issuer = Issuer::start(text).await;
    let url = format!("http://{}/.well-known/openid-configuration", issuer.address);
    let source = KeySource::Discovered(url.into());
    let cache = KeyCache::default();
    cache.prepare(&source);
    assert_eq!(cache.keys(&source, PATIENCE).await.as_deref(), Some(&set));
    assert_eq!(issuer.asked(), 1);
}
