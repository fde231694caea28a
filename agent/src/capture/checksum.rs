//! The checksum of IP and TCP.

/// `IPPROTO_TCP`.
pub(super) const TCP: u8 = 6;

/// Of a TCP segment whose own field for it is zero; `addresses` are the packet's, source first. The segment is
/// shorter than 64 KiB, as any is.
pub(super) fn of_segment(addresses: &[u8], segment: &[u8]) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "as said above")]
    let size = (segment.len() as u16).to_be_bytes();
    checksum(&[addresses, &[0, TCP], &size, segment])
}

/// RFC 1071, of parts of even length.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let folded = folded as u16;
    !folded
}
