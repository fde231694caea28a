//! WebSocket: a server that echoes messages, and its client.

use std::time::Duration;

use clap::Args;
use futures::{SinkExt as _, StreamExt as _};
use http::Uri;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    accept_hdr_async, client_async,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use crate::{Client, Server, asynchronous, http_server::texts, report};

#[derive(Args)]
pub(crate) struct WebSocketClient {
    #[command(flatten)]
    client: Client,
    /// As ws://host/path; the host is the authority, whatever is connected to.
    #[arg(long)]
    url: Uri,
    /// How many messages it has echoed.
    #[arg(long, default_value_t = 1)]
    messages: usize,
    /// How long each is, in bytes.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// For how long it pauses before each, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Reports the first echo as it comes, as `{"first": 1}`.
    #[arg(long)]
    report_first: bool,
}

/// Serves for ever; a report a connection.
pub(crate) fn serve(server: &Server) -> anyhow::Result<()> {
    asynchronous::serve(server, |stream, _| async {
        let said = echo(stream)
            .await
            .unwrap_or_else(|error| json!({ "end": error.to_string() }));
        let _ = report(&said);
    })
}

async fn echo(stream: TcpStream) -> Result<Value, Error> {
    let (mut path, mut headers) = (String::new(), json!({}));
    #[expect(clippy::result_large_err, reason = "tungstenite's own signature")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().to_string();
        headers = texts(request.headers());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, look).await?;
    let mut messages = 0;
    let end = loop {
        match socket.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                messages += 1;
                if let Err(error) = socket.send(message).await {
                    break error.to_string();
                }
            }
            Some(Ok(Message::Close(_))) => {
                // The answer to it is sent as the socket is read on.
                while let Some(Ok(_)) = socket.next().await {}
                break "closed".to_owned();
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break error.to_string(),
            None => break "eof".to_owned(),
        }
    };
    Ok(json!({ "path": path, "headers": headers, "messages": messages, "end": end }))
}

/// Prints how many messages came back, and how it ended.
pub(crate) fn run(arguments: &WebSocketClient) -> anyhow::Result<()> {
    asynchronous::block_on(async {
        let mut echoed = 0;
        let deadline = Duration::from_millis(arguments.client.timeout_ms);
        let end = match timeout(deadline, talk(arguments, &mut echoed)).await {
            Ok(Ok(())) => "closed".to_owned(),
            Ok(Err(Error::Http(response))) => format!("HTTP {}", response.status().as_u16()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timeout".to_owned(),
        };
        report(&json!({ "echoed": echoed, "end": end }))
    })
}

async fn talk(arguments: &WebSocketClient, echoed: &mut usize) -> Result<(), Error> {
    let stream = TcpStream::connect(arguments.client.connect).await?;
    let (mut socket, _) = client_async(&arguments.url, stream).await?;
    for number in 0..arguments.messages {
        sleep(Duration::from_millis(arguments.pause_ms)).await;
        let text = format!("{number} {}", "x".repeat(arguments.bytes));
        let message = Message::text(text);
        socket.send(message.clone()).await?;
        match socket.next().await {
            Some(Ok(back)) if back == message => {
                *echoed += 1;
                if arguments.report_first && *echoed == 1 {
                    let _ = report(&json!({ "first": 1 }));
                }
            }
            Some(Err(error)) => return Err(error),
            _ => return Err(Error::ConnectionClosed),
        }
    }
    socket.close(None).await?;
    // Until the other side says so too.
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}
