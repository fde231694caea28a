use std::time::Duration;

use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::*;
use crate::hbone::{
    Settings,
    server::InboundRequest,
    testing::{Pair, echo, exchange, open, pair, read_all},
};

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let mut pair = pair(Settings::default()).await;
    let (mut client, mut server) = pair.stream().await;
    for (first, second) in [(&mut client, &mut server)] {
        first.halves().0.finish().unwrap();
        assert_eq!(read_all(second).await.unwrap(), b"");
        second.halves().0.send("late".into()).await.unwrap();
        second.halves().0.finish().unwrap();
        assert_eq!(read_all(first).await.unwrap(), b"late");
    }
    let (mut client, mut server) = pair.stream().await;
    server.halves().0.finish().unwrap();
    assert_eq!(read_all(&mut client).await.unwrap(), b"");
    client.halves().0.send("late".into()).await.unwrap();
    client.halves().0.finish().unwrap();
    assert_eq!(read_all(&mut server).await.unwrap(), b"late");
}

#[tokio::test]
async fn a_reset_reaches_the_other_end_after_what_came_before() {
    for from_client in [true, false] {
        let mut pair = pair(Settings::default()).await;
        let (client, server) = pair.stream().await;
        let (mut first, mut second) = if from_client {
            (client, server)
        } else {
            (server, client)
        };
        first.halves().0.send("before".into()).await.unwrap();
        let (send, receive) = second.halves();
        assert_eq!(receive.data().await.unwrap().unwrap(), "before");
        first.reset();
        let error = receive.data().await.unwrap_err();
        assert!(
            matches!(error, StreamError::Reset(Reason::CANCEL)),
            "{error:?}"
        );
        let error = send.reset_by_peer().await;
        assert!(
            matches!(error, StreamError::Reset(Reason::CANCEL)),
            "{error:?}"
        );
        let error = send.send("more".into()).await.unwrap_err();
        assert!(
            matches!(error, StreamError::Reset(Reason::CANCEL)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_dropped_early_is_reset() {
    let mut pair = pair(Settings::default()).await;
    let (client, mut server) = pair.stream().await;
    drop(client);
    let error = read_all(&mut server).await.unwrap_err();
    assert!(
        matches!(error, StreamError::Reset(Reason::CANCEL)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_waiting_sender_hears_of_a_reset() {
    let mut pair = pair(Settings::default()).await;
    let (mut client, server) = pair.stream().await;
    let large = Bytes::from(vec![0; 16 << 20]);
    let sending = client.halves().0.send(large);
    let (result, ()) = tokio::join!(sending, async { server.reset() });
    assert!(
        matches!(result, Err(StreamError::Reset(Reason::CANCEL))),
        "{result:?}"
    );
}

/// Paused time moves on only when nothing else can: then the sender is stuck for good.
#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_stops_the_sender() {
    let settings = Settings::default();
    let bound = settings.stream_window as usize + settings.max_send_buffer;
    let mut pair = pair(settings).await;
    let (mut client, mut server) = pair.stream().await;
    let (send, _) = client.halves();
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut accepted = 0;
    while timeout(Duration::from_secs(1), send.send(chunk.clone()))
        .await
        .is_ok()
    {
        accepted += chunk.len();
        assert!(accepted <= bound, "{accepted} bytes were accepted");
    }
    // Bytes that are received but not released are no reason to send more.
    let (_, receive) = server.halves();
    let mut held = 0;
    while let Ok(data) = timeout(Duration::from_secs(1), receive.data()).await {
        held += data.unwrap().unwrap().len();
    }
    assert!(held <= 4 << 20, "{held} bytes are held");
    receive.release(held);
    timeout(Duration::from_secs(1), send.send(chunk))
        .await
        .unwrap()
        .unwrap();
}

/// Server: echoes on port 1, and stops reading on port 2 after the first bytes.
async fn echo_or_stop(request: InboundRequest, stopped: Arc<Semaphore>) {
    if request.authority.port() == 1 {
        return echo(request).await;
    }
    let mut stream = request.accept(&Baggage::default()).unwrap();
    let (send, receive) = stream.halves();
    receive.data().await.unwrap();
    let _stall = receive.stall();
    stopped.add_permits(1);
    send.reset_by_peer().await;
}

/// hyperium/h2#853 and its kin: without windows that grow, four of these stop the tunnel.
#[tokio::test]
async fn stopped_readers_do_not_stop_the_tunnel() {
    const STOPPED: usize = 95;
    let Pair {
        tunnel,
        mut requests,
        ..
    } = pair(Settings::default()).await;
    let stopped = Arc::new(Semaphore::new(0));
    let server = Arc::clone(&stopped);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            tokio::spawn(echo_or_stop(request, Arc::clone(&server)));
        }
    });

    let progress = async {
        let (filled, mut is_filled) = mpsc::unbounded_channel();
        for index in 0..STOPPED {
            // The first ones get the whole window of a stream, the others what it has shrunk to.
            let fill = if index < 4 { 4 << 20 } else { 256 << 10 };
            let mut stream = open(&tunnel, "10.0.0.1:2").await.unwrap();
            let filled = filled.clone();
            tokio::spawn(async move {
                let (send, _) = stream.halves();
                send.send(Bytes::from(vec![1; 1024])).await.unwrap();
                send.send(Bytes::from(vec![1; fill - 1024])).await.unwrap();
                filled.send(()).unwrap();
                // And more than any window, to be in everybody's way.
                send.send(Bytes::from(vec![1; 8 << 20])).await.unwrap();
            });
            stopped.acquire().await.unwrap().forget();
        }
        for _ in 0..STOPPED {
            is_filled.recv().await.unwrap();
        }
        for _ in 0..3 {
            let mut stream = open(&tunnel, "10.0.0.1:1").await.unwrap();
            let data = vec![9; 8 << 20];
            let (send, receive) = stream.halves();
            let sending = async {
                send.send(data.clone().into()).await.unwrap();
                send.finish().unwrap();
            };
            let receiving = async {
                let mut received = 0;
                while let Some(chunk) = receive.data().await.unwrap() {
                    receive.release(chunk.len());
                    received += chunk.len();
                }
                received
            };
            let ((), received) = tokio::join!(sending, receiving);
            assert_eq!(received, data.len());
        }
    };
    timeout(Duration::from_secs(60), progress)
        .await
        .expect("the tunnel is stuck");
}

#[tokio::test]
async fn an_empty_exchange_ends() {
    let mut pair = pair(Settings::default()).await;
    let (mut client, mut server) = pair.stream().await;
    let (a, b) = tokio::join!(exchange(&mut client, b""), exchange(&mut server, b""));
    assert!(a.is_empty() && b.is_empty());
}
