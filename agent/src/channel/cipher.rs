//! Authenticated encryption, by whichever library is faster on this processor.
//!
//! Of a record of 16 KiB with AES-128-GCM: on a processor with AVX-512's wide AES, AWS-LC does 9.8 to 10.8 GB/s
//! and ring, which has no code for it, 6.3 to 7.7; with AVX2's alone, ring 6.7 and AWS-LC, which
//! has no code for that, 3.4. Records of 1 KiB and less are a little faster by ring everywhere (0.02 us).

use rustls::ConnectionTrafficSecrets;

/// Bytes of the authentication tag, the same in every cipher suite that we speak.
pub(super) const TAG: usize = 16;

/// Whose code it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    Ring,
    AwsLc,
}

impl Library {
    /// The one that is faster on this processor.
    pub(super) fn fastest() -> Self {
        // What AWS-LC asks for itself.
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Self::AwsLc;
        }
        Self::Ring
    }
}

/// A direction's key. It is held by its library, which wipes it.
pub(super) trait Cipher: Send + Sync {
    /// Encrypts `content` in place; what authenticates it and `header` is returned. A nonce may be used once.
    fn seal(&self, nonce: [u8; 12], header: &[u8], content: &mut [u8]) -> [u8; TAG];

    /// Decrypts `sealed`, whose tag is its end, in place; `None` if it or `header` isn't what was sealed.
    fn open<'a>(&self, nonce: [u8; 12], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]>;
}

pub(super) fn cipher(library: Library, secrets: &ConnectionTrafficSecrets) -> Box<dyn Cipher> {
    match library {
        Library::Ring => Box::new(of_ring(secrets)),
        Library::AwsLc => Box::new(of_aws_lc(secrets)),
    }
}

/// The two libraries' interfaces are the same, but no type of one is the other's.
macro_rules! cipher_of {
    ($library:ident, $new:ident) => {
        fn $new(secrets: &ConnectionTrafficSecrets) -> $library::aead::LessSafeKey {
            use $library::aead::{
                AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey,
            };

            let (algorithm, key) = match secrets {
                ConnectionTrafficSecrets::Aes128Gcm { key, .. } => (&AES_128_GCM, key),
                ConnectionTrafficSecrets::Aes256Gcm { key, .. } => (&AES_256_GCM, key),
                ConnectionTrafficSecrets::Chacha20Poly1305 { key, .. } => (&CHACHA20_POLY1305, key),
                _ => unreachable!("no other cipher suite is configured"),
            };
            let key = UnboundKey::new(algorithm, key.as_ref());
            LessSafeKey::new(key.expect("rustls gives a key of its suite"))
        }

        impl Cipher for $library::aead::LessSafeKey {
            fn seal(&self, nonce: [u8; 12], header: &[u8], content: &mut [u8]) -> [u8; TAG] {
                use $library::aead::{Aad, Nonce};

                let nonce = Nonce::assume_unique_for_key(nonce);
                self.seal_in_place_separate_tag(nonce, Aad::from(header), content)
                    .expect("the content is far below the cipher's limit")
                    .as_ref()
                    .try_into()
                    .expect("every tag has 16 bytes")
            }

            fn open<'a>(
                &self,
                nonce: [u8; 12],
                header: &[u8],
                sealed: &'a mut [u8],
            ) -> Option<&'a [u8]> {
                use $library::aead::{Aad, Nonce};

                let nonce = Nonce::assume_unique_for_key(nonce);
                let opened = self.open_in_place(nonce, Aad::from(header), sealed);
                opened.ok().map(|content| &*content)
            }
        }
    };
}

cipher_of!(ring, of_ring);
cipher_of!(aws_lc_rs, of_aws_lc);

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    #[test]
    fn what_one_library_seals_the_other_opens_and_no_byte_may_change() {
        // rustls makes no shorter keys for others: the channel's tests look at AES-128-GCM, by a connection's own.
        let suites: [fn(AeadKey, Iv) -> ConnectionTrafficSecrets; 2] = [
            |key, iv| ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            |key, iv| ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        ];
        for suite in suites {
            let secrets = || suite(AeadKey::from([7; 32]), Iv::from([0; 12]));
            let [ring, aws_lc] =
                [Library::Ring, Library::AwsLc].map(|library| cipher(library, &secrets()));
            for (from, to) in [(&ring, &aws_lc), (&aws_lc, &ring)] {
                let mut sealed = *b"twenty bytes of data................";
                let (content, tag) = sealed.split_at_mut(20);
                tag.copy_from_slice(&from.seal([1; 12], b"header", content));
                assert_ne!(content, b"twenty bytes of data");
                let opens = |nonce, header: &[u8], mut sealed: [u8; 36]| {
                    to.open(nonce, header, &mut sealed).map(<[u8]>::to_vec)
                };
                let content = opens([1; 12], b"header", sealed);
                assert_eq!(content.as_deref(), Some(&b"twenty bytes of data"[..]));
                assert_eq!(opens([2; 12], b"header", sealed), None);
                assert_eq!(opens([1; 12], b"hEader", sealed), None);
                for byte in 0..sealed.len() {
                    let mut changed = sealed;
                    changed[byte] ^= 1;
                    assert_eq!(opens([1; 12], b"header", changed), None, "byte {byte}");
                }
            }
        }
    }
}
