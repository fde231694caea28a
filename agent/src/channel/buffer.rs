//! Buffers that whole records lie in, kept for the next user: a connection holds one only while it
//! has bytes that can't go on.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

use super::records::{HEADER, MAX_CONTENT, TRAILER};

/// The longest record that we make.
pub const RECORD: usize = HEADER + MAX_CONTENT + TRAILER;
/// Records that a buffer holds: with 256 KiB at a time, system calls no longer count beside
/// encryption. ARCHITECTURE.md has the figures for other sizes.
pub const RECORDS: usize = 16;

const BYTES: usize = RECORD * RECORDS;
/// Buffers that a thread keeps without use: one for each direction of the connection that it is
/// serving.
const SPARE: usize = 2;

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Room for [`RECORDS`] records of [`RECORD`] bytes. What is in it at first is unspecified.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// One that is there, or a new one.
    #[must_use]
    pub fn take() -> Self {
        let spare = SPARES.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; BYTES].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // While its thread ends there is no place for it.
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARE {
                spares.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
