use std::time::Duration;

use tokio::io::duplex;

use super::*;
use crate::hbone::{
    client::Tunnel,
    testing::{TARGET, echo, exchange, open, pair},
};

/// What an arbitrary HTTP/2 client gets for a request: a status, or a reset.
async fn answer(method: Method, uri: &str) -> Result<StatusCode, h2::Error> {
    let (client, server) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        serve(server, &Settings::default(), echo, CancellationToken::new()).await
    });
    let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    drop(sender);
    let status = response.await.map(|response| response.status());
    connection.await.unwrap().unwrap();
    server.await.unwrap().unwrap();
    status
}

#[tokio::test]
async fn only_connect_is_served() {
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let status = answer(method, "https://10.0.0.1:80/").await.unwrap();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn a_bad_authority_is_answered_with_400() {
    for (authority, expected) in [
        ("10.0.0.1:80", StatusCode::OK),
        ("[fd00::1]:80", StatusCode::OK),
        ("web.shop:80", StatusCode::OK),
        ("10.0.0.1:0", StatusCode::BAD_REQUEST),
        ("10.0.0.1", StatusCode::BAD_REQUEST),
        ("10.0.0.1:65536", StatusCode::BAD_REQUEST),
        ("999.0.0.1:80", StatusCode::BAD_REQUEST),
        ("user@10.0.0.1:80", StatusCode::BAD_REQUEST),
        ("web..shop:80", StatusCode::BAD_REQUEST),
    ] {
        let status = answer(Method::CONNECT, authority).await.unwrap();
        assert_eq!(status, expected, "{authority}");
    }
}

#[tokio::test]
async fn drain_lets_streams_finish_and_takes_no_new_ones() {
    let mut pair = pair(Settings::default()).await;
    let (mut client, mut server) = pair.stream().await;
    pair.drain.cancel();
    let (a, b) = tokio::join!(exchange(&mut client, b"a"), exchange(&mut server, b"b"));
    assert_eq!((&*a, &*b), (&b"b"[..], &b"a"[..]));
    // The client has been told, with the bytes or before.
    assert!(pair.tunnel.is_draining());
    let error = open(&pair.tunnel, TARGET).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    drop((client, server));
    pair.server.await.unwrap().unwrap();
    pair.driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panicking_handler_costs_only_its_stream() {
    let (client, server) = duplex(64 * 1024);
    let handler = async |request: InboundRequest| {
        assert_eq!(
            request.authority.port(),
            80,
            "this panic belongs to the test"
        );
        echo(request).await;
    };
    let handler = move |request| handler(request);
    tokio::spawn(async move {
        serve(
            server,
            &Settings::default(),
            handler,
            CancellationToken::new(),
        )
        .await
    });
    let (tunnel, driver) = Tunnel::handshake(client, Settings::default())
        .await
        .unwrap();
    tokio::spawn(driver);
    let mut stream = open(&tunnel, "10.0.0.1:80").await.unwrap();
    assert!(open(&tunnel, "10.0.0.1:81").await.is_err());
    assert_eq!(exchange(&mut stream, b"unharmed").await, b"unharmed");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped() {
    let (_mute, server) = duplex(64 * 1024);
    let result = serve(server, &Settings::default(), echo, CancellationToken::new()).await;
    assert!(matches!(result, Err(ServeError::NoPreface(t)) if t == Duration::from_secs(20)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_died_is_noticed() {
    // The client's task never runs, and its socket stays open: a node that lost power.
    let (client, server) = duplex(64 * 1024);
    let (_tunnel, _driver) = Tunnel::handshake(client, Settings::default())
        .await
        .unwrap();
    let result = serve(server, &Settings::default(), echo, CancellationToken::new()).await;
    assert!(matches!(result, Err(ServeError::Dead(_))), "{result:?}");
}
