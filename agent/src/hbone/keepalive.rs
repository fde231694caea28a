//! Pings that find out when the other end of a tunnel is gone.

use std::{future, time::Duration};

use h2::{Ping, PingPong};
use tokio::time;

use super::{Settings, windows::Windows};

/// A ping went unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the other end of the tunnel did not answer a ping within {}s; its node or the network is down",
    .0.as_secs_f32()
)]
pub struct PingTimeout(pub Duration);

/// Pings at the interval, used or idle: a tunnel that only sends would take TCP a quarter of an
/// hour to give up. Returns only when a ping went unanswered.
pub(super) async fn keepalive(
    mut pings: PingPong,
    settings: &Settings,
    windows: &Windows,
) -> PingTimeout {
    let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
    loop {
        time::sleep(interval).await;
        windows.relax();
        match time::timeout(timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended, and says so by itself.
            Ok(Err(_)) => future::pending().await,
            Err(_) => return PingTimeout(timeout),
        }
    }
}
