//! TLS 1.3 records after the handshake (RFC 8446, section 5), sealed and opened in place.

use std::fmt;

use rustls::{
    ConnectionTrafficSecrets, ExtractedSecrets, SupportedCipherSuite, client::ClientConnectionData,
    kernel::KernelConnection, server::ServerConnectionData,
};

use super::cipher::{Cipher, Library, TAG, cipher};

/// Bytes before a record's content: type, version, length.
pub const HEADER: usize = 5;
/// Bytes after it: the content's true type, and the authentication tag, which has the same size in
/// every cipher suite that we speak.
pub const TRAILER: usize = 1 + TAG;
/// The most bytes of content in one record.
pub const MAX_CONTENT: usize = 1 << 14;

/// What a peer may add by padding (RFC 8446, section 5.2): the longest record is this much longer
/// than `MAX_CONTENT`.
const MAX_EXPANSION: usize = 256;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLOSE_NOTIFY: u8 = 0;
/// Handshake message `key_update`, three bytes of length, `update_not_requested`.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Why a peer's bytes aren't what TLS allows. Nothing after it can be trusted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// Not a record, or one longer than TLS allows.
    #[error("a TLS record with a malformed header")]
    Malformed,
    /// The tag doesn't fit: bytes were changed, lost or added on the way.
    #[error("a TLS record that fails authentication")]
    Forged,
    /// A message that has no place after the handshake.
    #[error("an unexpected TLS message of content type {0}")]
    Unexpected(u8),
    /// The peer gave up.
    #[error("TLS alert {0} from the other agent")]
    Alert(u8),
    /// No further key can be derived.
    #[error("TLS keys could not be updated: {0}")]
    KeyUpdate(rustls::Error),
}

/// The whole length of the record that `bytes` begin with; `None` if they are too few to tell.
///
/// # Errors
/// [`RecordError::Malformed`].
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_type = (20..=APPLICATION_DATA).contains(&kind);
    if !is_type || major != 3 || length > MAX_CONTENT + MAX_EXPANSION {
        return Err(RecordError::Malformed);
    }
    Ok(Some(HEADER + length))
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// Bytes of the peer: this many, from [`HEADER`] on.
    Data(usize),
    /// Something between the two record layers, which has been dealt with.
    Control,
    /// The peer sends nothing more (`close_notify`).
    Closed,
}

/// The keys of both directions. They are held by the cryptography library, which wipes them.
pub struct Keys {
    sending: Direction,
    receiving: Direction,
    successors: Successors,
    /// Who encrypts, from the next key on.
    library: Library,
    /// The peer has asked us to change our key.
    asked_to_update: bool,
    /// How many records a key may seal.
    limit: u64,
    #[cfg(test)]
    changes: u64,
}

struct Direction {
    cipher: Box<dyn Cipher>,
    iv: [u8; 12],
    sequence: u64,
}

/// Whoever derives the next keys.
pub(super) enum Successors {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    pub(super) fn new(secrets: ExtractedSecrets, successors: Successors) -> Self {
        let suite = successors.suite();
        // Well before the limit that is safe for the cipher, since the peer's count is its own.
        let limit = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit / 2,
            SupportedCipherSuite::Tls12(_) => unreachable!("only TLS 1.3 is configured"),
        };
        let library = Library::fastest();
        Self {
            sending: Direction::new(library, secrets.tx),
            receiving: Direction::new(library, secrets.rx),
            successors,
            library,
            asked_to_update: false,
            limit,
            #[cfg(test)]
            changes: 0,
        }
    }

    /// Whether [`Self::update`] is to be sent before the next data.
    #[must_use]
    pub fn is_update_due(&self) -> bool {
        self.asked_to_update || self.sending.sequence >= self.limit
    }

    /// Seals a message that our key changes here, and changes it. `record` has room for
    /// [`Self::UPDATE_RECORD`] bytes.
    ///
    /// # Errors
    /// [`RecordError::KeyUpdate`].
    pub fn update(&mut self, record: &mut [u8; Self::UPDATE_RECORD]) -> Result<(), RecordError> {
        record[HEADER..][..KEY_UPDATE.len()].copy_from_slice(&KEY_UPDATE);
        self.sending.seal(HANDSHAKE, record);
        let next = match &mut self.successors {
            Successors::Client(connection) => connection.update_tx_secret(),
            Successors::Server(connection) => connection.update_tx_secret(),
        };
        self.sending = Direction::new(self.library, next.map_err(RecordError::KeyUpdate)?);
        self.asked_to_update = false;
        #[cfg(test)]
        {
            self.changes += 1;
        }
        Ok(())
    }

    /// The length of the record that [`Self::update`] makes.
    pub const UPDATE_RECORD: usize = HEADER + KEY_UPDATE.len() + TRAILER;

    /// Seals application data in place: all of `record` but [`HEADER`] bytes at its beginning and
    /// [`TRAILER`] bytes at its end, at most [`MAX_CONTENT`] bytes.
    pub fn seal(&mut self, record: &mut [u8]) {
        self.sending.seal(APPLICATION_DATA, record);
    }

    /// Seals application data behind other records: `content` in pieces, at most [`MAX_CONTENT`] bytes together.
    pub fn seal_behind(&mut self, records: &mut Vec<u8>, content: &[&[u8]]) {
        let length: usize = content.iter().map(|piece| piece.len()).sum();
        debug_assert!(length <= MAX_CONTENT, "a record of {length} bytes");
        let start = records.len();
        records.reserve_exact(HEADER + length + TRAILER);
        records.extend([0; HEADER]);
        for piece in content {
            records.extend(*piece);
        }
        records.extend([0; TRAILER]);
        self.seal(&mut records[start..]);
    }

    /// Seals our `close_notify`.
    pub fn close(&mut self) -> [u8; HEADER + 2 + TRAILER] {
        const WARNING: u8 = 1;
        let mut record = [0; HEADER + 2 + TRAILER];
        record[HEADER..][..2].copy_from_slice(&[WARNING, CLOSE_NOTIFY]);
        self.sending.seal(ALERT, &mut record);
        record
    }

    /// Opens one whole record in place.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        let (kind, length) = self.receiving.open(record)?;
        let content = &record[HEADER..][..length];
        match (kind, content) {
            (APPLICATION_DATA, _) => Ok(Opened::Data(length)),
            (ALERT, [_, CLOSE_NOTIFY]) => Ok(Opened::Closed),
            (ALERT, [_, alert]) => Err(RecordError::Alert(*alert)),
            // The last byte: whether we are to do the same.
            (HANDSHAKE, [24, 0, 0, 1, asked @ 0..=1]) => {
                self.asked_to_update |= *asked == 1;
                let next = match &mut self.successors {
                    Successors::Client(connection) => connection.update_rx_secret(),
                    Successors::Server(connection) => connection.update_rx_secret(),
                };
                self.receiving =
                    Direction::new(self.library, next.map_err(RecordError::KeyUpdate)?);
                Ok(Opened::Control)
            }
            (kind, _) => Err(RecordError::Unexpected(kind)),
        }
    }

    /// How often our key has changed.
    #[cfg(test)]
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    #[cfg(test)]
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    #[cfg(test)]
    pub(super) fn set_library(&mut self, library: Library) {
        self.library = library;
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("sent", &self.sending.sequence)
            .field("received", &self.receiving.sequence)
            .finish_non_exhaustive()
    }
}

impl Successors {
    fn suite(&self) -> SupportedCipherSuite {
        match self {
            Self::Client(connection) => connection.negotiated_cipher_suite(),
            Self::Server(connection) => connection.negotiated_cipher_suite(),
        }
    }
}

impl Direction {
    fn new(library: Library, (sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (ConnectionTrafficSecrets::Aes128Gcm { iv, .. }
        | ConnectionTrafficSecrets::Aes256Gcm { iv, .. }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { iv, .. }) = &secrets
        else {
            unreachable!("no other cipher suite is configured");
        };
        Self {
            cipher: cipher(library, &secrets),
            iv: iv
                .as_ref()
                .try_into()
                .expect("12 bytes in every TLS 1.3 suite"),
            sequence,
        }
    }

    /// The initialisation vector and the record's number, of which no two are equal under one key.
    fn nonce(&mut self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        // A key is changed long before its 2^64th record.
        self.sequence += 1;
        nonce
    }

    fn seal(&mut self, kind: u8, record: &mut [u8]) {
        let length = record.len() - HEADER;
        debug_assert!(
            length <= MAX_CONTENT + TRAILER,
            "a record of {length} bytes"
        );
        let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        record[..HEADER].copy_from_slice(&header);
        let (content, tag) = record[HEADER..].split_at_mut(length - TAG);
        content[length - TRAILER] = kind;
        let nonce = self.nonce();
        tag.copy_from_slice(&self.cipher.seal(nonce, &header, content));
    }

    /// The type and length of what was inside.
    fn open(&mut self, record: &mut [u8]) -> Result<(u8, usize), RecordError> {
        let (header, sealed) = record
            .split_first_chunk_mut::<HEADER>()
            .ok_or(RecordError::Malformed)?;
        if header[0] != APPLICATION_DATA || sealed.len() < TRAILER {
            return Err(RecordError::Unexpected(header[0]));
        }
        let nonce = self.nonce();
        let content = self
            .cipher
            .open(nonce, header, sealed)
            .ok_or(RecordError::Forged)?;
        // Zeros after the type are padding.
        let end = content.iter().rposition(|byte| *byte != 0);
        let end = end.ok_or(RecordError::Unexpected(0))?;
        if end > MAX_CONTENT {
            return Err(RecordError::Malformed);
        }
        Ok((content[end], end))
    }
}
