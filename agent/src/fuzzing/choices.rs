//! Structured inputs out of bytes.

use std::borrow::Cow;

/// Decisions, one after the other, by the bytes of an input. Where they end every further one is the first
/// of those that can be made, so that every input is a whole one.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    /// A number below that, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Up to `most` bytes as they are in the input.
    pub(super) fn bytes(&mut self, most: u8) -> &'a [u8] {
        let length = usize::from(self.byte() % (most + 1)).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// A text of up to `most` bytes.
    pub(super) fn text(&mut self, most: u8) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes(most))
    }

    /// One of those, or another.
    pub(super) fn text_or(&mut self, known: &[&'static str]) -> Cow<'a, str> {
        match self.below(known.len() + 1) {
            index if index < known.len() => known[index].into(),
            _ => self.text(16),
        }
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}
