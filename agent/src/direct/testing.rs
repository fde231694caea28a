//! Direct tunnels inside one process, for tests.

use tokio::sync::oneshot;

use super::{DirectStream, Home};
use crate::channel::{Channel, testing::channels};

/// Both ends of a connection in a tunnel.
pub(crate) async fn stream() -> (DirectStream, DirectStream) {
    let end = |channel: Box<Channel<_>>| {
        DirectStream::new(channel, Home::Server(oneshot::channel().0), Box::default())
    };
    let (near, far) = channels().await;
    (end(near), end(far))
}
