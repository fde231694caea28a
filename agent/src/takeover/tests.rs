use std::{net::TcpStream, os::fd::OwnedFd};

use tempfile::TempDir;

use super::*;

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_successor_gets_the_lock_and_what_waits_in_the_sockets() {
    let directory = TempDir::new().unwrap();
    let (first, mut inherited, predecessor) = lead(directory.path()).await.unwrap();
    let (listener, address) = listening();
    assert!(inherited.take(address).is_none() && predecessor.is_none());
    // It waits to be accepted.
    let _client = TcpStream::connect(address).unwrap();

    let second = tokio::spawn({
        let directory = directory.path().to_owned();
        async move { lead(&directory).await }
    });
    let successor = first.asked().await;
    let relieved = tokio::spawn(successor.relieves(first, vec![OwnedFd::from(listener)]));
    let (second, mut inherited, predecessor) = second.await.unwrap().unwrap();
    assert!(!relieved.is_finished());
    let listener = inherited.take(address).unwrap();
    assert!(inherited.take(address).is_none());
    predecessor.unwrap().relieve().await.unwrap();
    relieved.await.unwrap().unwrap();
    listener.accept().unwrap();

    // The lock is the second's now, and so is the door.
    let third = tokio::spawn({
        let directory = directory.path().to_owned();
        async move { lead(&directory).await }
    });
    let successor = second.asked().await;
    let relieved = tokio::spawn(successor.relieves(second, Vec::new()));
    let (_third, _, predecessor) = third.await.unwrap().unwrap();
    predecessor.unwrap().relieve().await.unwrap();
    relieved.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_gone_leaves_the_lead_to_the_next() {
    let directory = TempDir::new().unwrap();
    let first = lead(directory.path()).await.unwrap();
    drop(first);
    vacant(directory.path()).await;
    let (_second, _, predecessor) = lead(directory.path()).await.unwrap();
    assert!(predecessor.is_none());
}

#[tokio::test]
async fn a_successor_that_ends_before_it_serves_is_told_of() {
    let directory = TempDir::new().unwrap();
    let (first, ..) = lead(directory.path()).await.unwrap();
    let second = tokio::spawn({
        let directory = directory.path().to_owned();
        async move { lead(&directory).await }
    });
    let successor = first.asked().await;
    let relieved = tokio::spawn(successor.relieves(first, Vec::new()));
    drop(second.await.unwrap().unwrap());
    let failed = relieved.await.unwrap();
    assert!(matches!(failed, Err(Error::Failed(_))), "{failed:?}");
}

#[tokio::test]
async fn who_speaks_another_version_gets_nothing_and_the_lead_stays() {
    let directory = TempDir::new().unwrap();
    let (first, ..) = lead(directory.path()).await.unwrap();
    let stranger = UnixStream::connect(socket_path(directory.path()));
    let stranger = stranger.await.unwrap();
    wire::send(&stranger, 77, &[]).await.unwrap();
    let second = tokio::spawn({
        let directory = directory.path().to_owned();
        async move { lead(&directory).await }
    });
    // The next one to ask is heard.
    let successor = first.asked().await;
    let relieved = tokio::spawn(successor.relieves(first, Vec::new()));
    let (_second, _, predecessor) = second.await.unwrap().unwrap();
    predecessor.unwrap().relieve().await.unwrap();
    relieved.await.unwrap().unwrap();
    let error = wire::receive(&stranger, YOURS).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_can_ask_is_named() {
    let directory = TempDir::new().unwrap();
    let (_first, ..) = lead(directory.path()).await.unwrap();
    std::fs::remove_file(socket_path(directory.path())).unwrap();
    let error = lead(directory.path()).await.unwrap_err().to_string();
    assert!(
        error.contains("node.lock") && error.contains("stop it first"),
        "{error}"
    );
}
