//! A key that somebody else keeps, as a Secret has it: made once, or given by cert-manager.

use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{Current, Error, Settings, root};
use crate::identity::x509;

/// The three texts of a Secret of type `kubernetes.io/tls`, all PEM.
#[derive(Clone)]
pub struct Material {
    /// `tls.crt`: what signs, a root or below one; those between it and the root after it.
    pub certificate: String,
    /// `tls.key`.
    pub key: Zeroizing<String>,
    /// `ca.crt`: every root that is to be trusted. Empty: `tls.crt` is the root.
    pub roots: String,
}

impl Material {
    /// A new root, which lives as long as settings say.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn generate(settings: &Settings, now: SystemTime) -> Result<Self, Error> {
        let id = format!("{:016x}", rand::random::<u64>());
        let not_after = now + settings.root_ttl;
        let made = root::create(
            &id,
            &settings.trust_domain,
            now - root::CLOCK_SKEW,
            not_after,
        )?;
        Ok(Self {
            roots: made.certificate.clone(),
            certificate: made.certificate,
            key: made.key,
        })
    }

    pub(super) fn load(&self) -> Result<Current, Error> {
        let wrong = |field, reason: String| Error::Given { field, reason };
        let chain = certificates("tls.crt", &self.certificate)?;
        let trusted = if self.roots.trim().is_empty() {
            &self.certificate
        } else {
            certificates("ca.crt", &self.roots)?;
            &self.roots
        };
        let unreadable = |error: x509::CertificateError| wrong("tls.crt", error.to_string());
        let facts = x509::facts(&chain[0]).map_err(unreadable)?;
        if !facts.authority {
            let reason = "it may not sign certificates (basicConstraints: CA is not set)";
            return Err(wrong("tls.crt", reason.to_owned()));
        }
        let signer = root::Signer::load(&chain[0], &self.key)
            .map_err(|error| wrong("tls.key", error.to_string()))?;
        if signer.public_key() != facts.public_key {
            return Err(wrong("tls.key", "it isn't the key of tls.crt".to_owned()));
        }
        let issuers = if facts.self_issued {
            Vec::new()
        } else {
            blocks(&self.certificate)
        };
        Ok(Current {
            root: facts.serial,
            not_after: facts.not_after,
            signer,
            issuers,
            bundle: blocks(trusted),
        })
    }
}

/// Each certificate of a text by itself, without what stands between them.
fn blocks(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter_map(|block| Some(format!("{}\n", &block[block.find(BEGIN)?..])))
        .collect()
}

/// At least one.
fn certificates(field: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::Given {
            field,
            reason: "there is no PEM certificate in it".to_owned(),
        }),
        Err(error) => Err(Error::Given {
            field,
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    fn given(change: impl FnOnce(&mut Material)) -> Result<Current, Error> {
        let settings = Settings::default();
        let mut material = Material::generate(&settings, SystemTime::now()).unwrap();
        change(&mut material);
        material.load()
    }

    #[test]
    fn what_was_given_wrongly_is_named() {
        let other = Material::generate(&Settings::default(), SystemTime::now()).unwrap();
        type Change<'a> = Box<dyn FnOnce(&mut Material) + 'a>;
        let cases: [(Change<'_>, &str, &str); 5] = [
            (
                Box::new(|given| given.certificate.clear()),
                "tls.crt",
                "no PEM certificate",
            ),
            (
                Box::new(|given| given.key = other.key.clone()),
                "tls.key",
                "isn't the key",
            ),
            (
                Box::new(|given| *given.key = "secret".into()),
                "tls.key",
                "",
            ),
            (
                Box::new(|given| given.roots = "nothing".into()),
                "ca.crt",
                "no PEM certificate",
            ),
            (
                Box::new(|given| {
                    let leaf = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
                    given.certificate = leaf.cert.pem();
                    *given.key = leaf.signing_key.serialize_pem();
                }),
                "tls.crt",
                "may not sign",
            ),
        ];
        for (change, field, reason) in cases {
            let error = given(change).err().unwrap().to_string();
            assert!(error.contains(field) && error.contains(reason), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn below_a_foreign_root_certificates_lead_to_it_by_what_is_between() {
        let root = Material::generate(&Settings::default(), SystemTime::now()).unwrap();
        let issuer =
            Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key).unwrap())
                .unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "between");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let between = params.signed_by(&key, &issuer).unwrap().pem();
        let loaded = given(|given| {
            given.certificate = format!("# from an issuer\n{between}");
            *given.key = key.serialize_pem();
            given.roots = format!("{0}\n# the same again\n{0}", root.certificate);
        })
        .unwrap();
        assert_eq!(loaded.issuers.len(), 1);
        assert_eq!(loaded.bundle.len(), 2);
        assert!(loaded.issuers[0].starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
