use std::time::Duration;

use tokio::io::duplex;

use super::*;
use crate::hbone::{
    Baggage, Forwarded,
    testing::{TARGET, exchange, in_a_minute, open, pair, pair_over, read_all},
};

#[tokio::test]
async fn bytes_and_headers_go_both_ways() {
    let mut pair = pair(Settings::default()).await;
    let sent = RequestHeaders {
        baggage: Baggage::parse("service.name=client"),
        forwarded: Forwarded::parse("for=\"10.1.1.1:999\";host=web"),
        traceparent: None,
    };
    let server = async {
        let request = pair.requests.recv().await.unwrap();
        assert_eq!(request.authority.to_string(), TARGET);
        assert_eq!(request.headers, sent);
        let mut stream = request
            .accept(&Baggage::parse("service.name=server"))
            .unwrap();
        assert_eq!(stream.peer().service.as_deref(), Some("client"));
        assert_eq!(read_all(&mut stream).await.unwrap(), b"question");
        assert_eq!(exchange(&mut stream, b"answer").await, b"");
    };
    let client = async {
        let authority = TARGET.parse().unwrap();
        let stream = pair.tunnel.open(&authority, &sent, in_a_minute()).await;
        let mut stream = stream.unwrap();
        assert_eq!(stream.peer().service.as_deref(), Some("server"));
        assert_eq!(exchange(&mut stream, b"question").await, b"answer");
    };
    tokio::join!(server, client);
    assert_eq!(pair.tunnel.open_streams(), 0);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let mut pair = pair(Settings::default()).await;
    for (status, expected) in [
        (400, "BadRequest"),
        (401, "Denied(401)"),
        (403, "Denied(403)"),
        (503, "Unavailable"),
        (404, "Status(404)"),
        (204, "Status(204)"),
    ] {
        let refuse = async {
            let request = pair.requests.recv().await.unwrap();
            request.refuse(StatusCode::from_u16(status).unwrap(), "a test");
        };
        let (result, ()) = tokio::join!(open(&pair.tunnel, TARGET), refuse);
        let error = result.unwrap_err();
        assert_eq!(format!("{error:?}"), expected);
        assert!(!error.is_retryable(), "{error:?}");
    }
    assert_eq!(
        pair.tunnel.open_streams(),
        0,
        "refused streams give their places back"
    );
}

#[tokio::test]
async fn a_request_dropped_without_an_answer_is_a_reset() {
    let mut pair = pair(Settings::default()).await;
    let ignore = async { drop(pair.requests.recv().await) };
    let (result, ()) = tokio::join!(open(&pair.tunnel, TARGET), ignore);
    assert!(
        matches!(result, Err(OpenError::Reset(Reason::CANCEL))),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_answer_within_the_deadline_is_a_timeout() {
    let mut pair = pair(Settings::default()).await;
    let result = open(&pair.tunnel, TARGET).await;
    assert!(matches!(result, Err(OpenError::Timeout)), "{result:?}");
    // The server, when it answers at last, finds the stream reset.
    let late = pair.requests.recv().await.unwrap();
    if let Ok(mut stream) = late.accept(&Baggage::default()) {
        assert!(read_all(&mut stream).await.is_err());
    }
}

#[tokio::test]
async fn a_tunnel_carries_no_more_streams_than_either_side_wants() {
    for (ours, theirs, expected) in [(2, 5, 2), (5, 2, 2)] {
        let settings = |max_streams| Settings {
            max_streams,
            ..Settings::default()
        };
        let (client, server) = duplex(64 * 1024);
        let mut pair = pair_over(client, server, settings(ours), settings(theirs)).await;
        // The first answer also brings the peer's settings.
        let mut streams = vec![pair.stream().await];
        while streams.len() < expected {
            streams.push(pair.stream().await);
        }
        let error = open(&pair.tunnel, TARGET).await.unwrap_err();
        assert!(matches!(error, OpenError::TunnelFull) && error.is_retryable());
        streams.pop();
        pair.stream().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_ping_ends_the_tunnel() {
    let (client, _mute) = duplex(64 * 1024);
    let (tunnel, driver) = Tunnel::handshake(client, Settings::default())
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    let error = open(&tunnel, TARGET).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let ended = driver.await.unwrap();
    assert!(
        matches!(ended, Err(TunnelError::Dead(PingTimeout(t))) if t == Duration::from_secs(20))
    );
    assert!(tunnel.is_closed() && tunnel.is_draining());
}

#[tokio::test(start_paused = true)]
async fn answered_pings_keep_an_idle_tunnel() {
    let mut pair = pair(Settings::default()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    pair.stream().await;
}

#[tokio::test]
async fn close_ends_every_stream() {
    let mut pair = pair(Settings::default()).await;
    let (mut client, mut server) = pair.stream().await;
    pair.tunnel.close();
    assert!(read_all(&mut client).await.is_err());
    assert!(read_all(&mut server).await.is_err());
    pair.driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_last_handle_closes_the_tunnel() {
    let mut pair = pair(Settings::default()).await;
    let (mut client, mut server) = pair.stream().await;
    drop(pair.tunnel);
    let (a, b) = tokio::join!(exchange(&mut client, b"a"), exchange(&mut server, b"b"));
    assert_eq!((&*a, &*b), (&b"b"[..], &b"a"[..]));
    drop((client, server));
    pair.driver.await.unwrap().unwrap();
    pair.server.await.unwrap().unwrap();
}
