//! Congestion control of the agent's sockets towards pods of its own node. The eBPF program `connected`
//! does the same with the pods' ends.

use ambit_common::pacing::{NAME_LENGTH, WITHOUT_TIMER, has_timer};
use socket2::Socket;

/// Has a socket whose packets don't leave the node send without waiting for a timer. If the kernel
/// refuses, it goes on as it was: slower.
pub(super) fn stop(socket: &Socket) {
    let stopped = socket.tcp_congestion().and_then(|name| {
        let mut padded = [0; NAME_LENGTH];
        let length = name.len().min(NAME_LENGTH);
        padded[..length].copy_from_slice(&name[..length]);
        if has_timer(&padded) {
            socket.set_tcp_congestion(&WITHOUT_TIMER)
        } else {
            Ok(())
        }
    });
    if let Err(error) = stopped {
        tracing::debug!("changing a socket's congestion control: {error}");
    }
}
