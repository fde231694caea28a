use http::StatusCode;
use tokio::{net::TcpStream, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use std::{sync::Mutex, time::Duration};

use super::*;
use crate::{
    channel::{Channel, Inbox, Next, testing::channels},
    discovery::model::WorkloadUid,
    hbone::{
        Authority, Baggage, RequestHeaders, client::OpenError, pool::PoolKey, testing::in_a_minute,
    },
    identity::testing::shop,
};

fn key(destination: &str) -> PoolKey {
    PoolKey {
        source: shop("client"),
        destination: shop(destination),
        uid: WorkloadUid("uid".into()),
        address: "127.0.0.1:15008".parse().unwrap(),
    }
}

/// A tunnel whose server does what the port says: 401 and 503 are refused, 1 is dropped, 2 ends well a while after
/// whoever serves it is done, and connections to other ports end well at once.
struct Tunnel {
    channel: Box<Channel<TcpStream>>,
    drain: CancellationToken,
    server: JoinHandle<Result<(), TunnelError>>,
}

async fn tunnel() -> Tunnel {
    let (channel, far) = channels().await;
    let drain = CancellationToken::new();
    let server = tokio::spawn(serve(far, answer, drain.clone()));
    Tunnel {
        channel,
        drain,
        server,
    }
}

async fn answer(request: DirectRequest) {
    let Authority::Address(address) = request.authority else {
        return request.refuse(StatusCode::BAD_REQUEST, "a name").await;
    };
    match address.port() {
        1 => {}
        2 => {
            let accepted = request.accept(Baggage::default(), Answer::Alone);
            let stream = accepted.await.unwrap();
            tokio::spawn(async {
                time::sleep(Duration::from_millis(10)).await;
                stream.finish();
            });
        }
        port @ (401 | 503) => {
            request
                .refuse(StatusCode::from_u16(port).unwrap(), "as asked")
                .await;
        }
        _ => {
            let baggage = request.headers.baggage.clone();
            request
                .accept(baggage, Answer::Alone)
                .await
                .unwrap()
                .finish();
        }
    }
}

async fn ask(channel: &mut Channel<TcpStream>, authority: &str) -> Result<Baggage, OpenError> {
    ask_with(channel, authority, b"").await
}

async fn ask_with(
    channel: &mut Channel<TcpStream>,
    authority: &str,
    ahead: &[u8],
) -> Result<Baggage, OpenError> {
    let authority = authority.parse().unwrap();
    let headers = RequestHeaders {
        baggage: Baggage::parse("service.name=cart"),
        ..RequestHeaders::default()
    };
    let answer = open(channel, &authority, &headers, ahead, in_a_minute()).await;
    answer.map(|baggage| *baggage)
}

#[tokio::test]
async fn a_tunnel_carries_one_connection_after_the_other_refusals_included() {
    let mut tunnel = tunnel().await;
    for _ in 0..3 {
        let baggage = ask(&mut tunnel.channel, "10.0.0.1:80").await.unwrap();
        assert_eq!(baggage.to_string(), "service.name=cart");
        let denied = ask(&mut tunnel.channel, "10.0.0.1:401").await;
        assert!(matches!(denied, Err(OpenError::Denied(_))), "{denied:?}");
        let unavailable = ask(&mut tunnel.channel, "10.0.0.1:503").await;
        assert!(
            matches!(unavailable, Err(OpenError::Unavailable)),
            "{unavailable:?}"
        );
        let named = ask(&mut tunnel.channel, "db.shop.svc:80").await;
        assert!(matches!(named, Err(OpenError::BadRequest)), "{named:?}");
    }
    drop(tunnel.channel);
    tunnel.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tunnel_is_used_on_after_a_connection_that_ends_late() {
    let mut tunnel = tunnel().await;
    for _ in 0..3 {
        ask_with(&mut tunnel.channel, "10.0.0.1:2", b"GET")
            .await
            .unwrap();
    }
    drop(tunnel.channel);
    tunnel.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_sent_with_a_question_waits_for_whoever_accepts() {
    let (mut near, far) = channels().await;
    let said = Mutex::new(Vec::<u8>::new());
    let handler = async |request: DirectRequest| {
        let accepted = request
            .accept(Baggage::default(), Answer::WithData)
            .await
            .unwrap();
        let mut channel = accepted.channel;
        let mut inbox = Inbox::new(channel.received);
        let next = inbox.open(&mut channel.keys).unwrap();
        let Next::Data(content) = next else {
            panic!("{next:?}");
        };
        said.lock().unwrap().extend(inbox.content(content));
        assert!(accepted.holds_answer);
        tell(&channel.io);
    };
    let served = serve(far, handler, CancellationToken::new());
    let asked = ask_with(&mut near, "10.0.0.1:80", b"GET");
    let (served, asked) = tokio::join!(served, asked);
    served.unwrap();
    asked.unwrap();
    let data = [&[Kind::Data as u8], &b"GET"[..]].concat();
    assert_eq!(said.into_inner().unwrap(), data);
}

#[tokio::test]
async fn what_was_sent_with_a_refused_question_is_passed_over() {
    let mut tunnel = tunnel().await;
    for _ in 0..3 {
        let denied = ask_with(&mut tunnel.channel, "10.0.0.1:401", b"GET").await;
        assert!(matches!(denied, Err(OpenError::Denied(_))), "{denied:?}");
    }
    ask(&mut tunnel.channel, "10.0.0.1:80").await.unwrap();
    drop(tunnel.channel);
    tunnel.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_ends_badly_takes_its_tunnel_along() {
    let mut tunnel = tunnel().await;
    let gone = ask(&mut tunnel.channel, "10.0.0.1:1").await;
    assert!(matches!(gone, Err(OpenError::TunnelClosed(_))), "{gone:?}");
    tunnel.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_draining_server_closes_its_tunnels_between_connections() {
    let mut tunnel = tunnel().await;
    ask(&mut tunnel.channel, "10.0.0.1:80").await.unwrap();
    tunnel.drain.cancel();
    tunnel.server.await.unwrap().unwrap();
    let gone = ask(&mut tunnel.channel, "10.0.0.1:80").await;
    assert!(matches!(gone, Err(OpenError::TunnelClosed(_))), "{gone:?}");
}

#[tokio::test]
async fn a_draining_server_still_serves_what_was_on_its_way() {
    let mut tunnel = tunnel().await;
    ask(&mut tunnel.channel, "10.0.0.1:80").await.unwrap();
    tunnel.drain.cancel();
    // It has told, and the client hasn't heard yet.
    tunnel.channel.io.readable().await.unwrap();
    ask_with(&mut tunnel.channel, "10.0.0.1:80", b"GET")
        .await
        .unwrap();
    tunnel.server.await.unwrap().unwrap();
}

fn pool(max_per_key: usize, max_tunnels: usize) -> Pool {
    Pool::new(PoolSettings {
        max_per_key,
        max_tunnels,
        ..PoolSettings::default()
    })
}

/// A tunnel that has been used once, and its server.
async fn used(pool: &Pool, key: &PoolKey) -> Tunnel {
    let Tunnel {
        channel,
        drain,
        server,
    } = tunnel().await;
    pool.reserve(key).unwrap().give_back(channel);
    let (channel, _) = channels().await;
    Tunnel {
        channel,
        drain,
        server,
    }
}

#[tokio::test]
async fn a_tunnel_is_used_again_by_its_own_key_only() {
    let pool = pool(4, 4);
    let _tunnel = used(&pool, &key("server")).await;
    assert_eq!(pool.len(), 1);
    assert!(pool.take(&key("other")).is_none());
    let (mut channel, lease) = pool.take(&key("server")).unwrap();
    assert!(pool.take(&key("server")).is_none(), "it is in use");
    ask(&mut channel, "10.0.0.1:80").await.unwrap();
    lease.give_back(channel);
    assert!(pool.take(&key("server")).is_some());
    assert!(
        pool.is_empty(),
        "nothing is left of a tunnel that was dropped"
    );
}

#[tokio::test]
async fn a_tunnel_that_its_server_has_closed_is_not_given_out() {
    let pool = pool(4, 4);
    let tunnel = used(&pool, &key("server")).await;
    tunnel.drain.cancel();
    tunnel.server.await.unwrap().unwrap();
    // The end may still be on its way through the kernel: then asking tells.
    let Some((mut gone, _lease)) = pool.take(&key("server")) else {
        return assert!(pool.is_empty());
    };
    assert!(matches!(
        ask(&mut gone, "10.0.0.1:80").await,
        Err(OpenError::TunnelClosed(_))
    ));
}

#[tokio::test]
async fn bounds_hold_and_idle_tunnels_make_room() {
    let pool = pool(2, 3);
    let leases: Vec<Lease> = (0..2)
        .map(|_| pool.reserve(&key("server")).unwrap())
        .collect();
    assert!(pool.reserve(&key("server")).is_none(), "two of one key");
    let _idle = used(&pool, &key("other")).await;
    assert_eq!(pool.len(), 3);
    let third = pool
        .reserve(&key("third"))
        .expect("the idle one makes room");
    assert_eq!(pool.len(), 3);
    assert!(pool.reserve(&key("fourth")).is_none(), "three in all");
    drop((leases, third));
    assert!(pool.is_empty());
}

#[tokio::test]
async fn what_was_replaced_or_closed_or_drained_is_not_used_again() {
    type Act = fn(&Pool);
    let cases: [(&str, Act, bool); 3] = [
        (
            "replaced",
            |pool| pool.replace(|it| *it == key("server")),
            false,
        ),
        (
            "closed",
            |pool| pool.close_matching(|it| *it == key("server")),
            true,
        ),
        ("drained", Pool::drain, false),
    ];
    for (case, act, ends_at_once) in cases {
        let pool = pool(4, 4);
        let _idle = used(&pool, &key("server")).await;
        let _other = used(&pool, &key("other")).await;
        let lease = pool.reserve(&key("server")).unwrap();
        act(&pool);
        assert!(pool.take(&key("server")).is_none(), "{case}");
        assert_eq!(
            pool.take(&key("other")).is_none(),
            case == "drained",
            "{case}"
        );
        let ended = time::timeout(Duration::ZERO, lease.ended()).await.is_ok();
        assert_eq!(ended, ends_at_once, "{case}");
        lease.give_back(channels().await.0);
        assert!(pool.is_empty(), "{case}");
    }
}

#[tokio::test]
async fn idle_tunnels_are_closed_after_a_while() {
    let settings = PoolSettings {
        idle_timeout: Duration::from_millis(50),
        ..PoolSettings::default()
    };
    let pool = Pool::new(settings);
    let tunnel = used(&pool, &key("server")).await;
    // Its server hears of it.
    tunnel.server.await.unwrap().unwrap_or(());
    assert!(pool.is_empty());
}
