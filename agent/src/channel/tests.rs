use proptest::prelude::*;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{cipher::Library, records::record_length, testing::shake_hands, *};
use crate::identity::{
    testing::{TestAuthority, shop},
    tls::{
        ALPN_DIRECT, ALPN_HTTP2, Protocols, client_config, identity_sni, peer_identity,
        server_config,
    },
};

/// One record with this content, as the peer gets it.
fn sealed(keys: &mut Keys, content: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEADER + content.len() + TRAILER];
    record[HEADER..][..content.len()].copy_from_slice(content);
    keys.seal(&mut record);
    record
}

/// All that is opened from what was received.
fn opened(keys: &mut Keys, received: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    let mut inbox = Inbox::new(received);
    let mut all = Vec::new();
    while let Next::Data(content) = inbox.open(keys)? {
        all.extend(inbox.content(content));
    }
    Ok(all)
}

async fn keys() -> (Keys, Keys) {
    let (near, far) = duplex(64 * 1024);
    let (near, far) = shake_hands(near, far).await;
    (near.channel.keys, far.channel.keys)
}

#[tokio::test]
async fn both_ends_know_each_other_and_agree_on_the_direct_protocol() {
    let (near, far) = duplex(64 * 1024);
    let (near, far) = shake_hands(near, far).await;
    for (side, peer) in [(near, "server"), (far, "client")] {
        assert_eq!(side.alpn.as_deref(), Some(ALPN_DIRECT));
        assert_eq!(peer_identity(&side.certificates), Ok(shop(peer)));
    }
}

#[tokio::test]
async fn records_carry_what_was_put_in_in_both_directions() {
    let (mut near, mut far) = keys().await;
    for length in [0, 1, 100, MAX_CONTENT] {
        let content = vec![7; length];
        let record = sealed(&mut near, &content);
        assert!(length < 100 || !record.windows(100).any(|bytes| bytes == &content[..100]));
        assert_eq!(opened(&mut far, record).unwrap(), content);
        let record = sealed(&mut far, &content);
        assert_eq!(opened(&mut near, record).unwrap(), content);
    }
}

#[tokio::test]
async fn a_record_that_was_changed_lost_or_repeated_is_refused() {
    let change = |record: &mut Vec<u8>, at: usize| record[at] ^= 1;
    type Spoil = fn(Vec<u8>, Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Spoil, RecordError); 5] = [
        ("lost", |_, second| second, RecordError::Forged),
        (
            "repeated",
            |first, _| [first.clone(), first].concat(),
            RecordError::Forged,
        ),
        (
            "swapped",
            |first, second| [second, first].concat(),
            RecordError::Forged,
        ),
        (
            "plain alert",
            |_, _| vec![21, 3, 3, 0, 2, 1, 0],
            RecordError::Unexpected(21),
        ),
        (
            "not TLS",
            |_, _| b"GET / HTTP/1.1\r\n".to_vec(),
            RecordError::Malformed,
        ),
    ];
    for (case, spoil, error) in cases {
        let (mut near, mut far) = keys().await;
        let (first, second) = (sealed(&mut near, b"first"), sealed(&mut near, b"second"));
        assert_eq!(opened(&mut far, spoil(first, second)), Err(error), "{case}");
    }
    for at in [HEADER, HEADER + 3, HEADER + TRAILER] {
        let (mut near, mut far) = keys().await;
        let mut record = sealed(&mut near, b"first");
        change(&mut record, at);
        assert_eq!(
            opened(&mut far, record),
            Err(RecordError::Forged),
            "byte {at}"
        );
    }
}

#[tokio::test]
async fn keys_change_before_they_wear_out_and_nothing_is_lost() {
    let (near, far) = duplex(1 << 20);
    let (mut near, far) = shake_hands(near, far).await;
    near.channel.keys.set_limit(3);
    let (mut near, mut far) = (
        ChannelStream::new(*near.channel),
        ChannelStream::new(*far.channel),
    );
    for number in 0..20_u8 {
        near.write_all(&[number; 50]).await.unwrap();
        near.flush().await.unwrap();
        let mut got = [0; 50];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [number; 50]);
    }
    // Each key seals two records of data and the message that it ends.
    assert!(near.keys_changed() >= 5, "{}", near.keys_changed());
}

/// Each agent encrypts by what is fastest on its own processor.
#[tokio::test]
async fn either_library_opens_what_the_other_seals() {
    for (sealing, opening) in [
        (Library::Ring, Library::AwsLc),
        (Library::AwsLc, Library::Ring),
    ] {
        let (mut near, mut far) = keys().await;
        near.set_library(sealing);
        far.set_library(opening);
        let mut update = [0; Keys::UPDATE_RECORD];
        near.update(&mut update).unwrap();
        assert_eq!(opened(&mut far, update.to_vec()), Ok(Vec::new()));
        for length in [0, 1, 100, MAX_CONTENT] {
            let content = vec![7; length];
            let record = sealed(&mut near, &content);
            assert_eq!(opened(&mut far, record), Ok(content), "{sealing:?}");
        }
        let mut record = sealed(&mut near, b"data");
        record[HEADER] ^= 1;
        assert_eq!(opened(&mut far, record), Err(RecordError::Forged));
    }
}

/// What the channel speaks is TLS as others know it, whichever side is ours.
#[tokio::test]
async fn other_implementations_of_tls_understand_it() {
    let mesh = TestAuthority::new();
    let (client, server) = (mesh.issue(&shop("client")), mesh.issue(&shop("server")));
    let name: ServerName<'static> = identity_sni(&shop("server"));
    let client = client_config(&client, shop("server"), Protocols::Http2);
    let server = server_config(&server, Protocols::Any);

    let (near, far) = duplex(64 * 1024);
    let ours = async {
        Incoming::read(far)
            .await
            .unwrap()
            .accept(server.clone())
            .await
            .unwrap()
    };
    let theirs = TlsConnector::from(client.clone()).connect(name.clone(), near);
    let (ours, theirs) = tokio::join!(ours, theirs);
    assert_eq!(ours.alpn.as_deref(), Some(ALPN_HTTP2));
    talk(ChannelStream::new(*ours.channel), theirs.unwrap()).await;

    let (near, far) = duplex(64 * 1024);
    let theirs = TlsAcceptor::from(server).accept(far);
    let (ours, theirs) = tokio::join!(connect(near, client, name), theirs);
    talk(ChannelStream::new(*ours.unwrap().channel), theirs.unwrap()).await;
}

/// Half a mebibyte each way, then the end of each direction.
async fn talk(
    ours: impl AsyncReadExt + AsyncWriteExt + Unpin,
    theirs: impl AsyncReadExt + AsyncWriteExt + Unpin,
) {
    let sent: Vec<u8> = (0..=250).cycle().take(512 * 1024).collect();
    let (mut our_read, mut our_write) = tokio::io::split(ours);
    let (mut their_read, mut their_write) = tokio::io::split(theirs);
    let (mut by_us, mut by_them) = (Vec::new(), Vec::new());
    let sent = &sent;
    let (a, b, c, d) = tokio::join!(
        async {
            our_write.write_all(sent).await?;
            our_write.shutdown().await
        },
        async {
            their_write.write_all(sent).await?;
            their_write.shutdown().await
        },
        our_read.read_to_end(&mut by_us),
        their_read.read_to_end(&mut by_them),
    );
    let ends: [std::io::Result<()>; 4] = [a, b, c.map(drop), d.map(drop)];
    ends.into_iter().collect::<std::io::Result<()>>().unwrap();
    assert!(by_us == *sent && by_them == *sent);
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_no_end() {
    let (near, far) = duplex(64 * 1024);
    let (near, far) = shake_hands(near, far).await;
    let mut near = ChannelStream::new(*near.channel);
    near.write_all(b"the beginning of").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let mut got = Vec::new();
    let error = ChannelStream::new(*far.channel)
        .read_to_end(&mut got)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(got, b"the beginning of");
}

/// What a client says first.
async fn client_hello() -> Vec<u8> {
    let client = TestAuthority::new().issue(&shop("client"));
    let config = client_config(&client, shop("server"), Protocols::Any);
    let (near, mut far) = duplex(64 * 1024);
    let hello = async {
        let mut bytes = vec![0; 4096];
        let length = far.read(&mut bytes).await.unwrap();
        drop(far);
        bytes.truncate(length);
        bytes
    };
    let (connected, hello) =
        tokio::join!(connect(near, config, identity_sni(&shop("server"))), hello);
    assert!(matches!(connected, Err(HandshakeError::Io(_))));
    hello
}

proptest! {
    // Each case shakes hands.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_record_header_is_read_or_refused(bytes: Vec<u8>) {
        if let Ok(Some(length)) = record_length(&bytes) {
            prop_assert!((HEADER..=RECORD + 256).contains(&length));
        }
    }

    /// The key exchange alone may be changed unseen until the peer's next message.
    #[test]
    fn whatever_a_client_says_first_is_answered_or_refused(
        at in 0_usize..1500, with: u8, tail: Vec<u8>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let server = TestAuthority::new().issue(&shop("server"));
            let server = server_config(&server, Protocols::Any);
            let mut hello = client_hello().await;
            let at = at % hello.len();
            hello[at] = with;
            let (mut near, far) = duplex(64 * 1024);
            near.write_all(&hello).await.unwrap();
            near.write_all(&tail).await.unwrap();
            near.shutdown().await.unwrap();
            let accepted = async { Incoming::read(far).await?.accept(server).await };
            assert!(accepted.await.is_err());
        });
    }

    #[test]
    fn records_may_arrive_in_any_pieces(pieces in prop::collection::vec(1_usize..3000, 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut near, mut far) = runtime.block_on(keys());
        let contents = [vec![1; 10], vec![2; 5000], Vec::new(), vec![3; 16000]];
        let stream: Vec<u8> = contents.iter().flat_map(|it| sealed(&mut near, it)).collect();
        let (mut inbox, mut got, mut rest) = (Inbox::default(), Vec::<u8>::new(), &stream[..]);
        for piece in pieces.iter().chain([&usize::MAX]) {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            inbox.space()[..now.len()].copy_from_slice(now);
            inbox.received(now.len());
            rest = later;
            while let Next::Data(content) = inbox.open(&mut far).unwrap() {
                got.extend(inbox.content(content));
            }
            if piece % 2 == 0 {
                inbox.rest();
            }
        }
        prop_assert_eq!(got, contents.concat());
    }
}
