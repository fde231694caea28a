//! Bytes as they are: a client that sends them slowly, and a server that answers with them, to show
//! a proxy what no well-behaved peer would.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{Client, Server, client, connection, server};

#[derive(Args)]
pub(crate) struct RawClient {
    #[command(flatten)]
    client: Client,
    /// Sent as one write; may be given several times. Escapes: \r \n \t \0 \\ \x41.
    #[arg(long = "send", required = true, value_parser = unescaped)]
    chunks: Vec<Bytes>,
    /// For how long it pauses after each, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Ends its direction after the last.
    #[arg(long)]
    end: bool,
}

#[derive(Args)]
pub(crate) struct RawServer {
    #[command(flatten)]
    server: Server,
    /// Sent as one write once the head of a request has come; may be given several times. Escapes as
    /// of the client.
    #[arg(long = "answer", required = true, value_parser = unescaped)]
    chunks: Vec<Bytes>,
    /// For how long it pauses after each, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

/// A type of its own, as clap takes a `Vec` for several values.
#[derive(Clone)]
struct Bytes(Vec<u8>);

/// Sends, then reads until the other side ends or says nothing for `--timeout-ms`.
pub(crate) fn run(arguments: &RawClient) -> anyhow::Result<()> {
    client::run(&arguments.client, |stream| {
        // A proxy may answer and close before it has got all.
        let sent = send(stream, &arguments.chunks, arguments.pause_ms);
        if arguments.end {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut said = received(stream);
        said["sent"] = json!(sent.is_ok());
        Ok(said)
    })
}

/// Serves for ever; a report a connection.
pub(crate) fn serve(arguments: RawServer) -> anyhow::Result<()> {
    let RawServer {
        server,
        chunks,
        pause_ms,
    } = arguments;
    server::run(&server, move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
            head.extend(byte);
        }
        send(stream, &chunks, pause_ms)?;
        Ok(json!({ "received": String::from_utf8_lossy(&head) }))
    })
}

fn send(mut stream: &TcpStream, chunks: &[Bytes], pause_ms: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for Bytes(chunk) in chunks {
        stream.write_all(chunk)?;
        thread::sleep(Duration::from_millis(pause_ms));
    }
    Ok(())
}

fn received(mut stream: &TcpStream) -> Value {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "eof".to_owned(),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => break connection::end(&error),
        }
    };
    json!({ "received": String::from_utf8_lossy(&bytes), "end": end })
}

fn unescaped(text: &str) -> anyhow::Result<Bytes> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits = rest.by_ref().take(2).map(char::from);
                    let digits: String = digits.collect();
                    u8::from_str_radix(&digits, 16).context("\\x takes two digits")?
                }
                _ => bail!("{text:?} has an escape that isn't one"),
            },
            byte => byte,
        });
    }
    Ok(Bytes(bytes))
}
