use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// Asks for a list of numbers what answers with these bytes, and then closes the connection or
/// waits.
async fn ask(answer: &[u8], closes: bool, deadline: Duration) -> Result<Vec<u32>, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let agent = Agent {
        address,
        deadline,
        longest_answer: 100,
    };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]);
        assert!(request.starts_with("GET /status HTTP/1.1\r\n"), "{request}");
        stream.write_all(answer).await.unwrap();
        if !closes {
            std::future::pending::<()>().await;
        }
    };
    let asked = async {
        let asked = agent.ask("status").await;
        asked.map_err(|error| words(&error, address))
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        () = serve => asked.await,
    }
}

/// What an error says between what is the same for all.
fn words(error: &Error, address: SocketAddr) -> String {
    let text = error.to_string();
    let start = format!("the agent at {address} can't be asked for its status: ");
    let end = " In a cluster: kubectl -n ambit-system exec ds/ambit-node -- ambit status";
    let inner = text
        .strip_prefix(&start)
        .and_then(|text| text.strip_suffix(end));
    inner.expect(&text).to_owned()
}

#[tokio::test]
async fn an_answer_is_read() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,2]";
    assert_eq!(ask(answer, false, LONG).await, Ok(vec![1, 2]));
}

#[tokio::test]
async fn whatever_keeps_an_answer_away_is_told_with_a_cure() {
    let version = env!("CARGO_PKG_VERSION");
    let other = format!(
        "It isn't of this command's version ({version}), or is no agent: use the program that the \
         agent runs."
    );
    let too_long = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n".to_vec(),
        vec![b' '; 101],
    ]
    .concat();
    for (answer, closes, expected) in [
        (
            &b"SSH-2.0-OpenSSH_9.9\r\n"[..],
            false,
            "what listens there doesn't answer in HTTP (invalid HTTP version parsed). Is this its \
             --admin-address?",
        ),
        (
            b"",
            true,
            "what listens there doesn't answer in HTTP (connection closed before message \
             completed). Is this its --admin-address?",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            false,
            &format!("it doesn't know /status. {other}"),
        ),
        (
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 6\r\n\r\nbroke\n",
            false,
            "it answers 500 Internal Server Error, \"broke\". Its log says more.",
        ),
        (
            &too_long,
            false,
            "its answer is longer than 100 bytes. Is this its --admin-address?",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,",
            true,
            "its answer breaks off (error reading a body from connection). Did it end?",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            false,
            &format!(
                "its answer isn't understood (invalid type: map, expected a sequence at line 1 \
                 column 0). {other}"
            ),
        ),
    ] {
        let told = ask(answer, closes, LONG).await.unwrap_err();
        assert_eq!(told, expected, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn an_agent_that_does_not_run_is_told_apart() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let asked = Agent::new(address).ask::<Vec<u32>>("status").await;
    assert_eq!(
        words(&asked.unwrap_err(), address),
        "Connection refused (os error 111). Is it running on this node, with this --admin-address?"
    );
}

#[tokio::test]
async fn an_agent_that_does_not_say_all_in_time_is_not_waited_for() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,"] {
        let told = ask(answer, false, Duration::from_millis(500)).await;
        assert_eq!(
            told.unwrap_err(),
            "timed out, no answer within 0.5 s. It is starting, overloaded or stuck; its log says \
             more."
        );
    }
}
