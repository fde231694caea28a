//! `/observe`: a line of JSON for each event, until the client goes.

use std::{convert::Infallible, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, stream};
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Either, StreamBody};
use hyper::{Response, body::Frame};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    routes::text,
    server::{Body, whole},
};
use crate::telemetry::{
    Metrics,
    flows::{FlowFilter, FlowLine, FlowView, Observation},
};

/// Events that are written at once at most, so that a chunk is of some tens of KiB.
const AT_ONCE: usize = 64;

/// Begins with the connections that are open. Ends with `stop`.
pub(super) fn answer(
    query: Option<&str>,
    metrics: &Arc<Metrics>,
    stop: CancellationToken,
) -> Response<Body> {
    let filter = match FlowFilter::parse(query.unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return whole(text(StatusCode::BAD_REQUEST, format!("{error}\n"))),
    };
    let observation = match metrics.flows().observe(filter) {
        Ok(observation) => observation,
        Err(error) => return whole(text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))),
    };
    // Later than the first event is told of, so that none is missed.
    let open = metrics.open_flows();
    let body = StreamBody::new(chunks(observation, open, stop)).boxed_unsync();
    let mut answer = Response::new(Either::Right(body));
    let kind = HeaderValue::from_static("application/jsonl");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn chunks(
    observation: Observation,
    open: impl Iterator<Item = FlowView> + Send + 'static,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static {
    stream::unfold((observation, open), move |(mut observation, mut open)| {
        let stop = stop.clone();
        async move {
            let mut chunk = BytesMut::new();
            while chunk.is_empty() {
                let batch: Vec<_> = open.by_ref().take(AT_ONCE).collect();
                if batch.is_empty() {
                    break;
                }
                for view in batch {
                    if observation.filter().selects(&view) {
                        line(&mut chunk, &view);
                    }
                }
                // There may be a hundred thousand that aren't wanted.
                tokio::task::yield_now().await;
            }
            while chunk.is_empty() {
                let mut events = Vec::new();
                let lost = tokio::select! {
                    lost = observation.next(&mut events, AT_ONCE) => lost,
                    () = stop.cancelled() => return None,
                };
                if lost > 0 {
                    line(&mut chunk, &FlowLine::Lost { lost });
                }
                for view in events {
                    line(&mut chunk, &*view);
                }
            }
            Some((Ok(Frame::data(chunk.freeze())), (observation, open)))
        }
    })
}

fn line(chunk: &mut BytesMut, value: &impl Serialize) {
    // Neither a map with keys that are no text, nor an error of a Serialize of its own: it can't fail.
    if serde_json::to_writer(chunk.writer(), value).is_ok() {
        chunk.put_u8(b'\n');
    }
}
