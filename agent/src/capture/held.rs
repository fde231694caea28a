//! SYNs that pods sent before they were known are sent on once they are.

use std::time::Duration;

use ambit_common::{from_bytes, held::HeldSyn, name};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};

use super::{
    checksum::{TCP, of_segment},
    interfaces::monotonic_now,
    maps::{self, take},
};

/// Of more, the oldest are left to their clients.
const MOST: usize = 1024;
/// Older ones have been sent again by their clients, twice.
const PATIENCE: Duration = Duration::from_secs(4);

const ETHERNET: usize = 14;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Where the TCP header has its flags, and its checksum.
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
/// Where the program finds the interface's index: `cb` in the kernel's `__sk_buff`.
const INDEX: usize = 48;

/// The SYNs, and the program that sends them on.
pub(super) struct HeldSyns {
    ring: RingBuf<MapData>,
    send_on: SchedClassifier,
    waiting: Vec<HeldSyn>,
}

impl HeldSyns {
    pub(super) fn take(object: &mut Ebpf, send_on: SchedClassifier) -> Result<Self, maps::Error> {
        Ok(Self {
            ring: take(object, name::HELD)?,
            send_on,
            waiting: Vec::new(),
        })
    }

    /// Sends on what came by interfaces whose pods are known by now.
    pub(super) fn send_on(&mut self, is_known: impl Fn(u32) -> bool) {
        while let Some(item) = self.ring.next() {
            self.waiting.extend(from_bytes::<HeldSyn>(&item));
        }
        let surplus = self.waiting.len().saturating_sub(MOST);
        self.waiting.drain(..surplus);
        let now = monotonic_now();
        let is_old = |held: &HeldSyn| Duration::from_nanos(now.saturating_sub(held.at)) > PATIENCE;
        let send_on = &self.send_on;
        self.waiting.retain(|held| {
            if is_known(held.interface) {
                send(send_on, held);
                return false;
            }
            !is_old(held)
        });
    }
}

/// The packet meets the hook as it did when it came out of its pod.
fn send(program: &SchedClassifier, held: &HeldSyn) {
    let length = usize::try_from(held.length).unwrap_or(0);
    let Some(frame) = held.frame.get(..length).and_then(whole) else {
        return;
    };
    let mut context = [0; INDEX + 4];
    context[INDEX..].copy_from_slice(&held.interface.to_ne_bytes());
    let options = TestRunOptions {
        data_in: Some(&frame),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    match program.test_run(options) {
        Ok(result) if result.return_value == 0 => {}
        Ok(result) => tracing::debug!(
            interface = held.interface,
            code = result.return_value.cast_signed(),
            "a SYN that was held isn't sent on; its client sends it again"
        ),
        Err(error) => tracing::debug!("sending a SYN on that was held: {error}"),
    }
}

/// The frame with its TCP checksum, which a pod leaves to its interface; `None` if it isn't a SYN alone.
fn whole(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET..)?;
    let (header, length, protocol, addresses) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0x0f) * 4;
            let length = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
            (header, length.into(), *packet.get(9)?, packet.get(12..20)?)
        }
        6 => {
            let length = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]);
            let all = 40 + usize::from(length);
            (40, all, *packet.get(6)?, packet.get(8..40)?)
        }
        _ => return None,
    };
    let segment = packet.get(header..length)?;
    let options = usize::from(segment.get(12)? >> 4) * 4;
    let is_syn = segment.get(FLAGS)? & (SYN | ACK) == SYN;
    // What a client sends along with it (TCP Fast Open) isn't kept.
    if protocol != TCP || !is_syn || options != segment.len() || options < 20 {
        return None;
    }
    let mut segment = segment.to_vec();
    segment[CHECKSUM..CHECKSUM + 2].fill(0);
    let sum = of_segment(addresses, &segment);
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    let before = &frame[..ETHERNET + header];
    Some([before, &segment].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::checksum::checksum;

    /// Without checksum, and with the padding of the shortest frames.
    fn frame(version: u8, flags: u8, data: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        let mut tcp = vec![0_u8; 24 + data];
        tcp[12] = 6 << 4;
        tcp[FLAGS] = flags;
        tcp[CHECKSUM] = 0x55;
        let size = u8::try_from(tcp.len()).unwrap();
        match version {
            4 => {
                let mut header = [1; 20];
                header[0] = 0x45;
                header[2..4].copy_from_slice(&[0, 20 + size]);
                header[9] = TCP;
                frame.extend(header);
            }
            _ => {
                let mut header = [1; 40];
                header[0] = 0x60;
                header[4..6].copy_from_slice(&[0, size]);
                header[6] = TCP;
                frame.extend(header);
            }
        }
        frame.extend(tcp);
        frame.extend([7; 3]);
        frame
    }

    #[test]
    fn a_syn_is_sent_on_with_a_checksum_that_holds() {
        for (version, header, addresses) in [(4, 20, 12..20), (6, 40, 8..40)] {
            let before = frame(version, SYN, 0);
            let after = whole(&before).unwrap();
            assert_eq!(after.len(), ETHERNET + header + 24);
            assert_eq!(after[..ETHERNET + header], before[..ETHERNET + header]);
            let packet = &after[ETHERNET..];
            // With its own checksum in it, the sum is that of nothing.
            let sum = checksum(&[&packet[addresses], &[0, TCP, 0, 24], &packet[header..]]);
            assert_eq!(sum, 0);
        }
    }

    #[test]
    fn nothing_else_is_sent_on() {
        assert!(whole(&frame(4, SYN | ACK, 0)).is_none());
        assert!(whole(&frame(6, ACK, 0)).is_none());
        assert!(whole(&frame(6, SYN, 4)).is_none());
        let all = frame(4, SYN, 0);
        for length in 0..all.len() - 3 {
            assert!(whole(&all[..length]).is_none(), "{length}");
        }
        assert!(whole(&[0x50; 60]).is_none());
    }
}
