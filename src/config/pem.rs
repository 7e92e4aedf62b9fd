//! PEM files with certificates and private keys: read within a bound, and what is wrong with them in the operator's
//! words.
//!
//! Not here: what certificates are for (`tls`, and the client of `pinion push`). What always holds: a text of this
//! module never quotes the content of a file, since it may be a private key.

use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use crate::limits::TLS_FILE_BYTES;
use crate::time::UnixMs;

const DAY_S: u64 = 86_400;

/// The certificates of a file, at least one, in their order.
///
/// # Errors
/// Completes "FILE: ...".
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err("no certificate in PEM form (-----BEGIN CERTIFICATE-----) is in it".into())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(broken(&error)),
    }
}

/// The certificates of a file as those that are trusted to sign others.
///
/// # Errors
/// Completes "FILE: ...".
pub fn trusted(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (n, certificate) in (1..).zip(certificates(path)?) {
        roots.add(certificate).map_err(|_| format!("certificate {n} of it is no X.509 certificate"))?;
    }
    Ok(roots)
}

/// The private key of a file: the first, if it has several.
///
/// # Errors
/// Completes "FILE: ...".
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if memchr::memmem::find(&text, b"ENCRYPTED PRIVATE KEY").is_some() => {
            Err("the key in it is encrypted, and there is nobody to type its passphrase: store it decrypted, \
                 readable by the gateway's user only"
                .into())
        }
        Err(pem::Error::NoItemsFound) => {
            Err("no private key in PEM form (PKCS#8, PKCS#1 or SEC1) is in it".into())
        }
        Err(error) => Err(broken(&error)),
    }
}

/// What is wrong with a certificate beside its private key, and whose fault it is.
pub fn pair_fault(error: &Error) -> (Side, String) {
    match error {
        Error::InconsistentKeys(_) => {
            (Side::Key, "does not fit the certificate: it is the key of another one".into())
        }
        Error::InvalidCertificate(_) => {
            (Side::Certificate, "the first certificate of it is no X.509 certificate of version 3".into())
        }
        _ => (
            Side::Key,
            "a kind of key that cannot be used: take ECDSA P-256 or P-384, Ed25519, or RSA from 2048 bits"
                .into(),
        ),
    }
}

/// One of the two files that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The certificate.
    Certificate,
    /// The private key.
    Key,
}

/// Why a certificate is not good at a time; `None`: it is, as far as the time goes.
pub(super) fn lapse(certificate: &CertificateDer<'_>, now: UnixMs) -> Option<String> {
    let now_s = u64::try_from(now.0 / 1000).ok()?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    // Trusts nobody, so it always fails; the time is what it judges first.
    let verdict = rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &RootCertStore::empty(),
        &[],
        now,
        algorithms,
    );
    match verdict {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(format!("expired {} days ago", now_s.saturating_sub(not_after.as_secs()) / DAY_S))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            let wait_s = not_before.as_secs().saturating_sub(now_s);
            Some(format!("becomes valid in {} days", wait_s.div_ceil(DAY_S)))
        }
        _ => None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    let read = file.take(TLS_FILE_BYTES + 1).read_to_end(&mut text).map_err(cannot)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > TLS_FILE_BYTES {
        return Err(format!("larger than {TLS_FILE_BYTES} bytes"));
    }
    Ok(text)
}

fn broken(error: &pem::Error) -> String {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be decoded",
    };
    format!("broken PEM: {what}")
}
