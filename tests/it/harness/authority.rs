//! Certificate authorities for tests: made when a test runs, so that nothing in the repository expires.
//!
//! Also part of the library's unit tests (`src/config/mod.rs`).

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// When a certificate is good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Always.
    Now,
    /// Until 2001.
    Past,
    /// From 3000.
    Future,
}

/// A CA with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Makes one.
    pub(crate) fn new(name: &str, when: When) -> Self {
        let mut params = params(&[], when);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names and addresses, and its key.
    pub(crate) fn issue(&self, names: &[&str], when: When) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, when).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes `NAME-ca.pem`.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> PathBuf {
        write(directory, &format!("{name}-ca.pem"), &self.pem)
    }

    /// Issues, and writes `NAME.pem` and `NAME.key`.
    pub(crate) fn write_pair(
        &self,
        directory: &Path,
        name: &str,
        names: &[&str],
        when: When,
    ) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(names, when);
        (
            write(directory, &format!("{name}.pem"), &certificate),
            write(directory, &format!("{name}.key"), &key),
        )
    }
}

/// Writes a file that its owner only may read.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn params(names: &[&str], when: When) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    match when {
        When::Now => {}
        When::Past => params.not_after = date_time_ymd(2001, 1, 1),
        When::Future => params.not_before = date_time_ymd(3000, 1, 1),
    }
    params
}
