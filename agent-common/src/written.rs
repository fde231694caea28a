//! What the programs write for the agent to read.
#![expect(unsafe_code, reason = "plain data comes as bytes")]

use aya::Pod;

/// From what the kernel wrote; `None` if that is of another size.
#[must_use]
pub fn from_bytes<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: of plain data every bit pattern is valid, and there are as many bytes as it has.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_size_are_nothing() {
        let bytes = 7_u32.to_ne_bytes();
        assert_eq!(from_bytes::<u32>(&bytes), Some(7));
        assert_eq!(from_bytes::<u32>(&bytes[1..]), None);
        assert_eq!(from_bytes::<u64>(&bytes), None);
    }
}
