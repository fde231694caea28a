//! Congestion control on the way between a pod and its node's agent, which is no link.

/// `TCP_CA_NAME_MAX` of the kernel.
pub const NAME_LENGTH: usize = 16;

/// Every kernel has it.
pub const WITHOUT_TIMER: [u8; 4] = *b"reno";

/// Whether congestion control of that name lets segments go by a timer: BBR, and what is derived
/// from it, which all begin with its name.
#[must_use]
#[inline(always)]
pub fn has_timer(name: &[u8; NAME_LENGTH]) -> bool {
    matches!(name, [b'b', b'b', b'r', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_paced_by_a_timer_is_replaced() {
        for (name, expected) in [
            ("bbr", true),
            ("bbr2", true),
            ("cubic", false),
            ("reno", false),
            ("dctcp", false),
            ("", false),
        ] {
            let mut padded = [0; NAME_LENGTH];
            padded[..name.len()].copy_from_slice(name.as_bytes());
            assert_eq!(has_timer(&padded), expected, "{name}");
        }
    }
}
