//! What a server answers, and the connection that it comes on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Response,
    body::{Body, Frame, Incoming, SizeHint},
};

use super::{InFlight, Inner, Key, Life, driven::Driven};
use crate::discovery::model::ConnectionPool;

/// The body of an answer. Dropped before [`Self::give_back`], the connection that it comes on is closed, or
/// its stream reset.
pub(in crate::waypoint::http) struct UpstreamBody {
    incoming: Incoming,
    /// `None` once it was given back.
    lease: Option<Lease>,
}

/// A connection, or a place on one, for as long as somebody needs it.
pub(in crate::waypoint::http) struct Lease(Held);

pub(super) enum Held {
    Http1(Box<Whole>),
    Http2(InFlight),
}

/// A connection that is one request's alone, and where it goes then.
pub(super) struct Whole {
    pub(super) upstreams: Arc<Inner>,
    pub(super) key: Key,
    pub(super) connection: Driven,
    pub(super) life: Life,
    pub(super) pool: ConnectionPool,
}

impl Whole {
    fn give_back(mut self: Box<Self>) {
        if self.connection.is_ready() {
            self.keep();
        } else if self.connection.is_open() {
            // The server has answered before it has read all of the request.
            self.connection.tasks().spawn(async move {
                if self.connection.ready().await {
                    self.keep();
                }
            });
        }
    }

    fn keep(self: Box<Self>) {
        let Self {
            upstreams,
            key,
            connection,
            life,
            pool,
        } = *self;
        upstreams.keep(key, connection, life, &pool);
    }
}

impl UpstreamBody {
    /// An answer with the connection that it comes on.
    pub(super) fn of(response: Response<Incoming>, held: Held) -> Response<Self> {
        response.map(|incoming| Self {
            incoming,
            lease: Some(Lease(held)),
        })
    }

    /// Lets others use its connection: all of it has come.
    pub(in crate::waypoint::http) fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The connection, for what comes instead of a body.
    pub(in crate::waypoint::http) fn into_lease(self) -> Option<Lease> {
        self.lease
    }

    /// Has what is left of the request be sent also while nobody reads the answer.
    pub(in crate::waypoint::http) fn detach(&mut self) {
        if let Some(Lease(Held::Http1(whole))) = &mut self.lease {
            whole.connection.detach();
        }
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(Lease(Held::Http1(whole))) = &mut self.lease {
            whole.connection.drive(context);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // Asked first, so that the connection knows that more is wanted; what it then reads is there at once.
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        if polled.is_ready() {
            return polled;
        }
        self.drive(context);
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Lease {
    /// Drives a connection of HTTP/1.1 until it isn't HTTP any more, or closed.
    pub(in crate::waypoint::http) async fn finish(&mut self) {
        if let Held::Http1(whole) = &mut self.0 {
            whole.connection.finish().await;
        }
    }

    fn give_back(self) {
        match self.0 {
            Held::Http1(whole) => whole.give_back(),
            Held::Http2(in_flight) => drop(in_flight),
        }
    }
}
