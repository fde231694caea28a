//! What the programs tell of connections that pass.

use std::{io, time::Duration};

use ambit_common::{from_bytes, passed::Event};
use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time,
};

/// For how long events are gathered before they are taken: to be woken for each would cost more than
/// all else that is done for a short connection.
const GATHER: Duration = Duration::from_millis(10);

/// What the programs tell, in order.
pub struct Events(AsyncFd<RingBuf<MapData>>);

impl Events {
    pub(super) fn new(events: RingBuf<MapData>) -> io::Result<Self> {
        #[expect(
            unsafe_code,
            reason = "tokio asks for a promise about the descriptor's life"
        )]
        // SAFETY: the map owns the descriptor and keeps it open until dropped.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        Ok(Self(events?))
    }

    /// Waits until there are some, and takes all that are there.
    ///
    /// # Errors
    /// If they can't be waited for.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        loop {
            self.0.readable().await?.retain_ready();
            // Events that come meanwhile wake nobody.
            time::sleep(GATHER).await;
            let mut ready = self.0.readable_mut().await?;
            let mut events = Vec::new();
            while let Some(item) = ready.get_inner_mut().next() {
                events.extend(from_bytes::<Event>(&item));
            }
            ready.clear_ready();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
