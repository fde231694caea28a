use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    channel::{Inbox, Next},
    direct::{self, Kind},
    hbone::{Settings, testing::pair},
    telemetry::Transfer,
};

/// The way between a client and a server. Both must behave alike.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Tcp,
    Multiplexed,
    Direct,
}

const WAYS: [Way; 3] = [Way::Tcp, Way::Multiplexed, Way::Direct];

/// The two applications, and the copies between them.
struct Lab {
    client: TcpStream,
    server: TcpStream,
    cancel: CancellationToken,
    /// By the client's agent and, if there is a tunnel, by the server's.
    copies: Vec<JoinHandle<Result<(), CopyError>>>,
    transfers: Vec<Arc<Transfer>>,
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn lab(way: Way) -> Lab {
    let (client, client_far) = tcp_pair().await;
    let (server_far, server) = tcp_pair().await;
    let cancel = CancellationToken::new();
    let transfers = vec![Arc::new(Transfer::default()), Arc::new(Transfer::default())];
    let (first, second) = (Arc::clone(&transfers[0]), Arc::clone(&transfers[1]));
    let token = cancel.clone();
    let copies = match way {
        Way::Tcp => vec![tokio::spawn(async move {
            copy_tcp(client_far, server_far, &first, token).await
        })],
        Way::Multiplexed | Way::Direct => {
            let (near, far) = if way == Way::Direct {
                let (near, far) = direct::testing::stream().await;
                (TunnelStream::Direct(near), TunnelStream::Direct(far))
            } else {
                let (near, far) = pair(Settings::default()).await.stream().await;
                (
                    TunnelStream::Multiplexed(near),
                    TunnelStream::Multiplexed(far),
                )
            };
            let never = CancellationToken::new();
            vec![
                tokio::spawn(async move {
                    copy_tunnel(client_far, TcpSide::Client, near, &first, token).await
                }),
                tokio::spawn(async move {
                    copy_tunnel(server_far, TcpSide::Server, far, &second, never).await
                }),
            ]
        }
    };
    Lab {
        client,
        server,
        cancel,
        copies,
        transfers,
    }
}

impl Lab {
    /// How the copies ended, as `Debug` text without causes.
    async fn ends(self) -> Vec<String> {
        let mut ends = Vec::new();
        for copy in self.copies {
            ends.push(match copy.await.unwrap() {
                Ok(()) => "ok".to_owned(),
                Err(CopyError::TunnelReset(_) | CopyError::TunnelCut) => "TunnelReset".to_owned(),
                Err(error) => format!("{error:?}"),
            });
        }
        ends
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

async fn expect_reset(stream: &mut TcpStream) {
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// After a half-close Linux tells of a reset by writing only.
async fn write_until_reset(stream: &mut TcpStream) {
    let error = failure(stream).await;
    assert!(is_reset(&error), "{error}");
    assert!(stream.write_all(b"too late").await.is_err());
}

#[tokio::test]
async fn each_direction_is_half_closed_by_itself() {
    for way in WAYS {
        for client_first in [true, false] {
            let mut lab = lab(way).await;
            let (first, second) = if client_first {
                (&mut lab.client, &mut lab.server)
            } else {
                (&mut lab.server, &mut lab.client)
            };
            let mut text = String::new();
            first.write_all(b"early").await.unwrap();
            first.shutdown().await.unwrap();
            second.read_to_string(&mut text).await.unwrap();
            second.write_all(b"much later").await.unwrap();
            second.shutdown().await.unwrap();
            first.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "earlymuch later", "{way:?}");

            // Istio's words: what the server sends is sent.
            let expected = if client_first { (10, 5) } else { (5, 10) };
            for transfer in &lab.transfers[..lab.copies.len()] {
                assert_eq!((transfer.sent(), transfer.received()), expected, "{way:?}");
            }
            assert!(lab.ends().await.iter().all(|end| end == "ok"), "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_of_the_client_resets_the_server() {
    for (way, expected) in [
        (Way::Tcp, vec!["ClientReset"]),
        (Way::Multiplexed, vec!["ClientReset", "TunnelReset"]),
        (Way::Direct, vec!["ClientReset", "TunnelReset"]),
    ] {
        let mut lab = lab(way).await;
        lab.client.write_all(b"before").await.unwrap();
        lab.server.read_exact(&mut [0; 6]).await.unwrap();
        let gone = std::mem::replace(&mut lab.client, tcp_pair().await.0);
        reset(gone);
        expect_reset(&mut lab.server).await;
        assert_eq!(lab.ends().await, expected);
    }
}

#[tokio::test]
async fn a_reset_of_the_server_resets_the_client() {
    for (way, expected) in [
        (Way::Tcp, vec!["ServerReset"]),
        (Way::Multiplexed, vec!["TunnelReset", "ServerReset"]),
        (Way::Direct, vec!["TunnelReset", "ServerReset"]),
    ] {
        let mut lab = lab(way).await;
        let gone = std::mem::replace(&mut lab.server, tcp_pair().await.0);
        reset(gone);
        expect_reset(&mut lab.client).await;
        assert_eq!(lab.ends().await, expected);
    }
}

#[tokio::test]
async fn a_reset_right_behind_bytes_is_no_end() {
    let (mut client, client_far) = tcp_pair().await;
    let (near, mut far) = direct::testing::stream().await;
    let copy = tokio::spawn(async move {
        let (near, never) = (TunnelStream::Direct(near), CancellationToken::new());
        copy_tunnel(
            client_far,
            TcpSide::Client,
            near,
            &Transfer::default(),
            never,
        )
        .await
    });
    client.write_all(b"first").await.unwrap();
    far.channel.io.readable().await.unwrap();
    // The agent hears of both at once.
    client.write_all(b"last").await.unwrap();
    reset(client);
    let copied = copy.await.unwrap();
    assert!(matches!(copied, Err(CopyError::ClientReset)), "{copied:?}");

    let mut sealed = Vec::new();
    let _ = far.channel.io.read_to_end(&mut sealed).await;
    let mut inbox = Inbox::new(sealed);
    let mut said = Vec::new();
    while let Next::Data(content) = inbox.open(&mut far.channel.keys).unwrap() {
        said.push(inbox.content(content).to_vec());
    }
    let data = |bytes: &[u8]| [&[Kind::Data as u8], bytes].concat();
    assert_eq!(said, [data(b"first"), data(b"last")]);
}

/// Nobody reads from the side that has half-closed, and yet its reset must be noticed.
#[tokio::test]
async fn a_reset_after_a_half_close_is_noticed() {
    for way in WAYS {
        let mut lab = lab(way).await;
        lab.client.shutdown().await.unwrap();
        assert_eq!(lab.server.read(&mut [0; 1]).await.unwrap(), 0);
        let gone = std::mem::replace(&mut lab.client, tcp_pair().await.0);
        reset(gone);
        write_until_reset(&mut lab.server).await;
        assert!(lab.ends().await[0].starts_with("ClientReset"), "{way:?}");
    }
}

/// The copy is stuck writing to the server, which reads nothing.
#[tokio::test]
async fn a_reset_behind_a_stopped_reader_is_noticed() {
    for way in WAYS {
        let mut lab = lab(way).await;
        let writing = async {
            let chunk = vec![0; 1 << 20];
            while lab.client.write_all(&chunk).await.is_ok() {}
        };
        // Nothing moves for a second: windows and socket buffers are full.
        let _ = timeout(Duration::from_secs(1), writing).await;
        let gone = std::mem::replace(&mut lab.client, tcp_pair().await.0);
        reset(gone);
        write_until_reset(&mut lab.server).await;
        assert!(lab.ends().await[0].starts_with("ClientReset"), "{way:?}");
    }
}

#[tokio::test]
async fn cancellation_resets_both_sides() {
    for way in WAYS {
        let mut lab = lab(way).await;
        lab.cancel.cancel();
        expect_reset(&mut lab.client).await;
        expect_reset(&mut lab.server).await;
        assert_eq!(lab.ends().await[0], "Cancelled", "{way:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_dropped_resets_both_sides() {
    for way in WAYS {
        let mut lab = lab(way).await;
        lab.client.write_all(b"running").await.unwrap();
        lab.server.read_exact(&mut [0; 7]).await.unwrap();
        lab.copies[0].abort();
        expect_reset(&mut lab.client).await;
        expect_reset(&mut lab.server).await;
    }
}

#[tokio::test]
async fn a_tunnel_that_breaks_resets_the_connection() {
    let (mut client, client_far) = tcp_pair().await;
    let mut pair = pair(Settings::default()).await;
    let (near, _far) = pair.stream().await;
    let transfer = Transfer::default();
    let copy = copy_tunnel(
        client_far,
        TcpSide::Client,
        TunnelStream::Multiplexed(near),
        &transfer,
        CancellationToken::new(),
    );
    pair.tunnel.close();
    let result = copy.await;
    assert!(
        matches!(result, Err(CopyError::TunnelClosed(_))),
        "{result:?}"
    );
    expect_reset(&mut client).await;
}

/// Sends a reproducible stream of bytes and half-closes; gives its hash.
async fn send_noise(mut to: impl AsyncWriteExt + Unpin, seed: u8, bytes: usize) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut block: Vec<u8> = (0..=250).cycle().take(100_003).collect();
    block.iter_mut().for_each(|byte| *byte ^= seed);
    let mut left = bytes;
    while left > 0 {
        let chunk = &block[..left.min(block.len())];
        hash.update(chunk);
        to.write_all(chunk).await.unwrap();
        left -= chunk.len();
    }
    to.shutdown().await.unwrap();
    hash.finalize().into()
}

async fn receive_hash(mut from: impl AsyncReadExt + Unpin) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return hash.finalize().into(),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_each_way_at_once_arrive_whole() {
    const BYTES: usize = 64 << 20;
    for way in WAYS {
        let mut lab = lab(way).await;
        let (client_read, client_write) = lab.client.split();
        let (server_read, server_write) = lab.server.split();
        let (sent_up, sent_down, came_up, came_down) = tokio::join!(
            send_noise(client_write, 1, BYTES),
            send_noise(server_write, 2, BYTES),
            receive_hash(server_read),
            receive_hash(client_read),
        );
        assert_eq!(sent_up, came_up, "{way:?}");
        assert_eq!(sent_down, came_down, "{way:?}");
        let transfer = &lab.transfers[0];
        assert_eq!(
            (transfer.sent(), transfer.received()),
            (BYTES as u64, BYTES as u64)
        );
        assert!(lab.ends().await.iter().all(|end| end == "ok"), "{way:?}");
    }
}

/// What an agent takes from a client beyond what its server has read is what it holds in memory.
#[tokio::test]
async fn a_server_that_stops_reading_stops_the_client() {
    for (way, bound) in [
        (Way::Tcp, MAX_BUFFER as u64),
        (Way::Multiplexed, 6 << 20),
        // Mostly the socket buffers of a tunnel over loopback.
        (Way::Direct, 12 << 20),
    ] {
        let mut lab = lab(way).await;
        let writing = async {
            let chunk = vec![0; 1 << 20];
            // Ends only if nothing holds it back.
            for _ in 0..512 {
                lab.client.write_all(&chunk).await.unwrap();
            }
        };
        let stuck = timeout(Duration::from_secs(1), writing).await;
        assert!(stuck.is_err(), "{way:?}: 512 MiB were accepted");
        let (last, first) = (lab.copies.len() - 1, 0);
        let held = lab.transfers[first].received() - lab.transfers[last].received();
        assert!(held <= bound, "{way:?}: {held} bytes are held");
        // It isn't dead, only waiting.
        let taken = lab.transfers[last].received();
        let mut read = vec![0; usize::try_from(taken).unwrap() + (1 << 20)];
        lab.server.read_exact(&mut read).await.unwrap();
    }
}
