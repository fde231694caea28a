//! What was received and not yet passed on: sealed bytes, and records that have been opened.

use super::{
    RecordError,
    buffer::Buffer,
    records::{HEADER, Keys, Opened, record_length},
};

/// One direction's receive buffer. Empty, it holds no memory but for the beginning of a record.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Option<Buffer>,
    /// Where the first unopened byte is, and the end of what was received.
    unopened: usize,
    filled: usize,
    /// Bytes of an incomplete record, while there is no buffer.
    rest: Vec<u8>,
}

/// Where in the inbox the content of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its first byte.
    pub start: usize,
    /// Behind its last.
    pub end: usize,
}

/// What the next record is.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Application data; it stays where it is until [`Inbox::space`] is asked for.
    Data(Content),
    /// The peer sends nothing more.
    Closed,
    /// Not there yet, or not whole.
    Missing,
}

impl Inbox {
    /// With bytes that were received before.
    #[must_use]
    pub fn new(received: Vec<u8>) -> Self {
        Self {
            rest: received,
            ..Self::default()
        }
    }

    /// Opens the next record in place.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(&mut self, keys: &mut Keys) -> Result<Next, RecordError> {
        if !self.rest.is_empty() {
            self.restore();
        }
        let Some(buffer) = &mut self.buffer else {
            return Ok(Next::Missing);
        };
        loop {
            let sealed = &mut buffer[self.unopened..self.filled];
            let length = match record_length(sealed)? {
                Some(length) if length <= sealed.len() => length,
                _ => return Ok(Next::Missing),
            };
            let start = self.unopened + HEADER;
            let opened = keys.open(&mut sealed[..length])?;
            self.unopened += length;
            match opened {
                Opened::Data(length) => {
                    return Ok(Next::Data(Content {
                        start,
                        end: start + length,
                    }));
                }
                Opened::Closed => return Ok(Next::Closed),
                Opened::Control => {}
            }
        }
    }

    /// The content of an opened record.
    #[must_use]
    pub fn content(&self, content: Content) -> &[u8] {
        self.buffer
            .as_deref()
            .map_or(&[], |buffer| &buffer[content.start..content.end])
    }

    /// Where to put what is received next. What was opened is gone by then.
    pub fn space(&mut self) -> &mut [u8] {
        self.restore();
        let (unopened, filled) = (self.unopened, self.filled);
        self.unopened = 0;
        self.filled -= unopened;
        let buffer = self.buffer.get_or_insert_with(Buffer::take);
        if unopened > 0 {
            buffer.copy_within(unopened..filled, 0);
        }
        &mut buffer[self.filled..]
    }

    /// Says how many bytes were put there.
    pub fn received(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// Gives the buffer back while there is nothing to do. What was opened is gone by then.
    pub fn rest(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.rest = buffer[self.unopened..self.filled].to_vec();
            (self.unopened, self.filled) = (0, 0);
        }
    }

    /// Bytes that were received and not opened, for whoever reads on.
    #[must_use]
    pub fn into_received(mut self) -> Vec<u8> {
        self.rest();
        self.rest
    }

    /// The bytes that were kept go into a buffer again.
    fn restore(&mut self) {
        if self.rest.is_empty() {
            return;
        }
        let buffer = self.buffer.get_or_insert_with(Buffer::take);
        // There is either a rest or a buffer with something in it, never both.
        buffer[..self.rest.len()].copy_from_slice(&self.rest);
        self.filled = self.rest.len();
        self.rest = Vec::new();
    }
}
