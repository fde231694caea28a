//! Asks the agent of this node, over HTTP on its admin port.

use std::{error::Error as StdError, io, mem, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time};
use tokio_util::task::AbortOnDropHandle;

/// For the whole of a request: the agent gives up on an answer after as long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes. 100,000 workloads are 40 MB.
const LONGEST_ANSWER: usize = 256 << 20;
/// Characters that an error shows of an answer that isn't what was asked for.
const EXCERPT: usize = 200;

/// Keeps a connection going.
type Drives = AbortOnDropHandle<Result<(), hyper::Error>>;

/// Where an agent answers, and what an answer may take.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    address: SocketAddr,
    deadline: Duration,
    longest_answer: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Who was asked, what happened, and the cure.
    #[error(
        "the agent at {address} can't be asked for its {what}: {failure} \
         In a cluster: kubectl -n ambit-system exec ds/ambit-node -- ambit {what}"
    )]
    NoAnswer {
        /// The agent.
        address: SocketAddr,
        /// What it was asked for.
        what: &'static str,
        /// What happened.
        failure: Failure,
    },
    /// The agent says what is wrong with the question.
    #[error("{0}")]
    Question(String),
}

/// What keeps an answer away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody listens, or the way there is barred.
    #[error("{0}. Is it running on this node, with this --admin-address?")]
    Unreachable(io::Error),
    /// Somebody listens and says nothing, or not all.
    #[error(
        "timed out, no answer within {} s. It is starting, overloaded or stuck; its log says more.",
        .0.as_secs_f32()
    )]
    TimedOut(Duration),
    /// The address can't be a Host header's.
    #[error("{0}. Write --admin-address as 127.0.0.1:15000.")]
    Request(http::Error),
    /// Something else listens there, or the agent ended meanwhile.
    #[error("what listens there doesn't answer in HTTP ({0}). Is this its --admin-address?")]
    NotHttp(hyper::Error),
    /// It has no such endpoint.
    #[error("it doesn't know /{0}. {other}", other = OTHER_VERSION)]
    Unknown(&'static str),
    /// It has, and couldn't.
    #[error("it answers {status}, {body:?}. Its log says more.")]
    Refused { status: StatusCode, body: String },
    /// It can't make sense of what it was asked.
    #[error("{0}")]
    Question(String),
    /// More than any agent has to say.
    #[error("its answer is longer than {0} bytes. Is this its --admin-address?")]
    TooLong(usize),
    /// The end of the answer is missing.
    #[error("its answer breaks off ({0}). Did it end?")]
    BrokenOff(Box<dyn StdError + Send + Sync>),
    /// JSON of another kind, or none.
    #[error("its answer isn't understood ({0}). {other}", other = OTHER_VERSION)]
    NotUnderstood(serde_json::Error),
}

const OTHER_VERSION: &str = concat!(
    "It isn't of this command's version (",
    env!("CARGO_PKG_VERSION"),
    "), or is no agent: use the program that the agent runs."
);

impl Agent {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            deadline: DEADLINE,
            longest_answer: LONGEST_ANSWER,
        }
    }

    /// What it answers to `GET /<what>`: each command has an endpoint of its name.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn ask<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, Error> {
        self.ask_about(what, "").await
    }

    /// What it answers to `GET /<what>?<query>`.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn ask_about<T: DeserializeOwned>(
        &self,
        what: &'static str,
        query: &str,
    ) -> Result<T, Error> {
        let answered = time::timeout(self.deadline, self.fetch(what, query)).await;
        let body = answered.unwrap_or(Err(Failure::TimedOut(self.deadline)));
        let parsed =
            body.and_then(|body| serde_json::from_slice(&body).map_err(Failure::NotUnderstood));
        parsed.map_err(|failure| self.error(what, failure))
    }

    /// What it goes on answering to `GET /<what>?<query>`.
    ///
    /// # Errors
    /// [`Error`], if it doesn't begin.
    pub(super) async fn follow(&self, what: &'static str, query: &str) -> Result<Following, Error> {
        let begun = time::timeout(self.deadline, self.request(what, query)).await;
        let begun = begun.unwrap_or(Err(Failure::TimedOut(self.deadline)));
        let (answer, drives) = begun.map_err(|failure| self.error(what, failure))?;
        Ok(Following {
            agent: self.clone(),
            what,
            body: answer.into_body(),
            read: Vec::new(),
            _drives: drives,
        })
    }

    fn error(&self, what: &'static str, failure: Failure) -> Error {
        match failure {
            Failure::Question(text) => Error::Question(text),
            failure => Error::NoAnswer {
                address: self.address,
                what,
                failure,
            },
        }
    }

    async fn fetch(&self, what: &'static str, query: &str) -> Result<Bytes, Failure> {
        let (answer, _drives) = self.request(what, query).await?;
        self.read(answer.into_body()).await
    }

    /// Asks, and sees to it that it answers 200. The answer ends with the handle.
    async fn request(
        &self,
        what: &'static str,
        query: &str,
    ) -> Result<(Response<Incoming>, Drives), Failure> {
        let stream = TcpStream::connect(self.address).await;
        let stream = TokioIo::new(stream.map_err(Failure::Unreachable)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(Failure::NotHttp)?;
        // What it ends with, the request or the answer's body tells as well.
        let drives = AbortOnDropHandle::new(tokio::spawn(connection));
        let target = match query {
            "" => format!("/{what}"),
            query => format!("/{what}?{query}"),
        };
        let request = Request::get(target)
            .header(header::HOST, self.address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(Failure::Request)?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(Failure::NotHttp)?;

        let status = answer.status();
        if status == StatusCode::NOT_FOUND {
            return Err(Failure::Unknown(what));
        }
        if status != StatusCode::OK {
            let body = self.read(answer.into_body()).await?;
            let text = String::from_utf8_lossy(&body);
            if status == StatusCode::BAD_REQUEST {
                return Err(Failure::Question(text.trim().to_owned()));
            }
            return Err(Failure::Refused {
                status,
                body: text.trim().chars().take(EXCERPT).collect(),
            });
        }
        Ok((answer, drives))
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Failure> {
        let body = Limited::new(body, self.longest_answer);
        let collected = body.collect().await;
        let body = collected.map_err(|cause| match cause.is::<LengthLimitError>() {
            true => Failure::TooLong(self.longest_answer),
            false => Failure::BrokenOff(cause),
        })?;
        Ok(body.to_bytes())
    }
}

/// An answer that goes on.
#[derive(Debug)]
pub(super) struct Following {
    agent: Agent,
    what: &'static str,
    body: Incoming,
    /// Of the next line.
    read: Vec<u8>,
    _drives: Drives,
}

impl Following {
    /// The next line, without its end; `None` once the agent has ended the answer.
    ///
    /// # Errors
    /// [`Error`]: it breaks off, or has a line that is too long.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let failed = |failure| self.agent.error(self.what, failure);
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let mut line = mem::replace(&mut self.read, rest);
                line.pop();
                return Ok(Some(line));
            }
            if self.read.len() > self.agent.longest_answer {
                return Err(failed(Failure::TooLong(self.agent.longest_answer)));
            }
            let frame = self.body.frame().await.transpose();
            let frame = frame.map_err(|cause| failed(Failure::BrokenOff(cause.into())))?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }

    /// A line that isn't what it should be.
    pub(super) fn not_understood(&self, cause: serde_json::Error) -> Error {
        self.agent.error(self.what, Failure::NotUnderstood(cause))
    }
}

#[cfg(test)]
mod tests;
