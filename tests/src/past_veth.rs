//! A CNI that delivers packets past the host side of a pod's veth, as Cilium does.

use std::net::IpAddr;

use crate::{Error, Node, Pod, Result, sys};

/// Instructions of eBPF, eight bytes each: linux/bpf.h.
mod code {
    /// One instruction: operation, destination and source register, offset, immediate.
    pub(super) fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
        let [low, high] = offset.to_le_bytes();
        let [a, b, c, d] = value.to_le_bytes();
        u64::from_le_bytes([code, from << 4 | to, low, high, a, b, c, d])
    }

    /// `to = *(u32 *)(from + offset)`.
    pub(super) const LOAD: u8 = 0x61;
    /// `to = from`.
    pub(super) const COPY: u8 = 0xbf;
    /// `to = value`.
    pub(super) const SET: u8 = 0xb7;
    /// `to += value`.
    pub(super) const ADD: u8 = 0x07;
    /// If `to > from`, skips as many instructions as the offset says.
    pub(super) const SKIP_IF_GREATER: u8 = 0x2d;
    /// If the lower halves of `to` and the value differ.
    pub(super) const SKIP_IF_NOT: u8 = 0x56;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;

    /// Offsets of the packet's ends in `__sk_buff`.
    pub(super) const DATA: i16 = 76;
    pub(super) const DATA_END: i16 = 80;
    /// The helper's number.
    pub(super) const REDIRECT_PEER: i32 = 155;
    /// `TC_ACT_UNSPEC`.
    pub(super) const NEXT: i32 = -1;
}

impl Node {
    /// From now on, what comes in by a device of the node for a pod's first address goes straight
    /// into the pod's namespace: the host side of its veth doesn't see it.
    ///
    /// # Errors
    /// If the kernel or tc refuses.
    pub fn deliver_past_veth(&self, device: &str, pod: &Pod) -> Result<()> {
        let doing = || format!("deliver past {}", pod.host_interface());
        let index = self.interface_index(pod.host_interface())?;
        let program = sys::load_classifier(&program(pod.address(), index));
        let pin = self.bpf_directory().join(format!("past-{device}-{index}"));
        program
            .and_then(|program| sys::pin(&program, &pin))
            .map_err(Error::io(doing()))?;
        let added = self.run("tc", ["qdisc", "add", "dev", device, "clsact"])?;
        // Another pod's program may have needed it before.
        if !added.succeeded() && !added.stderr.contains("xclusivity") {
            added.success()?;
        }
        let filter = [
            "filter",
            "add",
            "dev",
            device,
            "ingress",
            "bpf",
            "direct-action",
        ];
        let command = self.command("tc").args(filter);
        command.arg("object-pinned").arg(&pin).run()?.success()?;
        Ok(())
    }

    fn interface_index(&self, interface: &str) -> Result<i32> {
        let shown = self.run("ip", ["-j", "link", "show", "dev", interface])?;
        let index = shown.json()?[0]["ifindex"].as_i64();
        index
            .and_then(|index| i32::try_from(index).ok())
            .ok_or_else(|| Error::Malformed {
                what: format!("interface {interface}"),
                cause: "it has no index".into(),
            })
    }
}

/// `if destination == address { return bpf_redirect_peer(index, 0) } else { return TC_ACT_UNSPEC }`
fn program(address: IpAddr, index: i32) -> Vec<u64> {
    use code::{
        ADD, CALL, COPY, DATA, DATA_END, EXIT, LOAD, NEXT, REDIRECT_PEER, SET, SKIP_IF_GREATER,
        SKIP_IF_NOT, instruction,
    };
    // Where the destination is behind an Ethernet header.
    let (at, octets) = match address {
        IpAddr::V4(address) => (30, address.octets().to_vec()),
        IpAddr::V6(address) => (38, address.octets().to_vec()),
    };
    let mut text = vec![
        instruction(LOAD, 2, 1, DATA, 0),
        instruction(LOAD, 3, 1, DATA_END, 0),
        instruction(COPY, 4, 2, 0, 0),
        instruction(ADD, 4, 0, 0, at + i32::try_from(octets.len()).unwrap_or(0)),
    ];
    let words: Vec<_> = octets.chunks_exact(4).collect();
    // To the end: four instructions are between the last comparison and it.
    let mut left = i16::try_from(2 * words.len()).unwrap_or(0) + 4;
    text.push(instruction(SKIP_IF_GREATER, 4, 3, left, 0));
    let offsets = (0_i16..).map(|word| i16::try_from(at).unwrap_or(0) + 4 * word);
    for (word, offset) in words.into_iter().zip(offsets) {
        let value = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        left -= 2;
        text.push(instruction(LOAD, 5, 2, offset, 0));
        text.push(instruction(SKIP_IF_NOT, 5, 0, left, value));
    }
    text.extend([
        instruction(SET, 1, 0, 0, index),
        instruction(SET, 2, 0, 0, 0),
        instruction(CALL, 0, 0, 0, REDIRECT_PEER),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(SET, 0, 0, 0, NEXT),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    text
}
