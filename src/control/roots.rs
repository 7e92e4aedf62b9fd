//! The certificate authorities that etcd and webhook receivers are checked against, read once at start.

use std::fmt::Display;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::plan::ControlFault;

/// Those of the PEM text, each of which must be one; without it those of the system, as far as they can be read.
pub(super) fn roots(of: &'static str, pem: Option<&[u8]>) -> Result<RootCertStore, ControlFault> {
    let fault = |why: &dyn Display| ControlFault::Tls { of, why: why.to_string() };
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|e| fault(&e))?).map_err(|e| fault(&e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    match (roots.is_empty(), pem) {
        (false, _) => Ok(roots),
        (true, Some(_)) => Err(fault(&"no certificate in the PEM text")),
        (true, None) => {
            Err(fault(&"the system has no certificate authorities: name a file with those to trust"))
        }
    }
}
