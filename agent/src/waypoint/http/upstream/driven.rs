//! A connection of HTTP/1.1 that whoever uses it drives.
//!
//! A task of its own, as is usual, would hand each request, each answer and each piece of a body from one
//! thread to another. Its user waits for nothing else meanwhile, and can do that work itself.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::super::body::RequestBody;

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection. Dropped, it ends as HTTP does, in a task of its own.
pub(in crate::waypoint::http) struct Driven {
    sender: http1::SendRequest<RequestBody>,
    drive: Drive,
    tasks: TaskTracker,
}

/// Who drives it.
enum Drive {
    User(Driver),
    Task,
    /// It is closed, or something else than HTTP.
    Nobody,
}

impl Driven {
    /// Speaks HTTP/1.1 on `io`.
    ///
    /// # Errors
    /// hyper's, of which none is known.
    pub(super) async fn new<I>(io: I, tasks: TaskTracker) -> hyper::Result<Self>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new().handshake(io).await?;
        Ok(Self {
            sender,
            drive: Drive::User(Box::pin(async move {
                // What went wrong is told to whoever has sent a request.
                let _ = connection.with_upgrades().await;
            })),
            tasks,
        })
    }

    /// Where it ends, and what it is to do without its user.
    pub(super) fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// With the request, if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|context| {
            self.drive.poll(context);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Goes on with what it has to read and to write.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        self.drive.poll(context);
    }

    /// Has a task drive it from here on, for a user who doesn't always come for more.
    pub(super) fn detach(&mut self) {
        self.drive.detach(&self.tasks);
    }

    /// Whether it is open, as far as can be seen at once.
    pub(super) fn is_open(&mut self) -> bool {
        // Who asks waits for nothing.
        self.drive(&mut Context::from_waker(Waker::noop()));
        match self.drive {
            Drive::User(_) => true,
            Drive::Task => !self.sender.is_closed(),
            Drive::Nobody => false,
        }
    }

    /// Whether it is open, and takes a request.
    pub(super) fn is_ready(&mut self) -> bool {
        self.is_open() && self.sender.is_ready()
    }

    /// Drives it until it takes a request. Tells whether it ever does.
    pub(super) async fn ready(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            self.sender.poll_ready(context)
        })
        .await
        .is_ok()
    }

    /// Drives it to its end.
    pub(super) async fn finish(&mut self) {
        poll_fn(|context| {
            self.drive(context);
            match self.drive {
                Drive::User(_) => Poll::Pending,
                Drive::Task | Drive::Nobody => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Drive {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let Self::User(driver) = self
            && driver.as_mut().poll(context).is_ready()
        {
            *self = Self::Nobody;
        }
    }

    fn detach(&mut self, tasks: &TaskTracker) {
        if !matches!(self, Self::User(_)) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            // Nobody is left to drive it, and it is reset.
            *self = Self::Nobody;
            return;
        };
        if let Self::User(driver) = mem::replace(self, Self::Task) {
            tasks.spawn_on(driver, &runtime);
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.detach();
    }
}
