//! TLS of the gRPC port: `rpc.tls_cert`, `rpc.tls_key` and `rpc.tls_client_ca` to what rustls works with.
//!
//! The files are read at start and at each reload (and by `pinion check`). What always holds: TLS 1.2 or
//! 1.3, HTTP/2 by ALPN, and with a client CA nobody without a certificate of its gets in. Sessions are not resumed:
//! callers keep their connections, and a cache would be a lock on the rpc threads.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::RpcConfig;
use super::pem::{self, Side};
use crate::time::UnixMs;

/// The one protocol on the gRPC port, as ALPN names it.
pub const ALPN_H2: &[u8] = b"h2";

const CERT: &str = "rpc.tls_cert";
const KEY: &str = "rpc.tls_key";
const CLIENT_CA: &str = "rpc.tls_client_ca";

/// What the gRPC port shows and asks of callers. Cheap to clone; nothing of it is shown.
#[derive(Clone)]
pub struct Tls(pub Arc<ServerConfig>);

impl PartialEq for Tls {
    /// Files that were read again count as others.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

#[cfg(test)]
impl Tls {
    /// As [`load`], for tests of other modules.
    pub(crate) fn read(rpc: &RpcConfig) -> Option<Self> {
        load(rpc, UnixMs(0), &mut Vec::new()).ok().flatten()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

/// A setting, and what is wrong with it.
pub type TlsFault = (&'static str, String);

/// Reads and checks the files that are set. `None`: TLS is off. What can be lived with goes to `warnings`.
pub(super) fn load(
    rpc: &RpcConfig,
    now: UnixMs,
    warnings: &mut Vec<String>,
) -> Result<Option<Tls>, Vec<TlsFault>> {
    let (cert, key) = match (&rpc.tls_cert, &rpc.tls_key, &rpc.tls_client_ca) {
        (Some(cert), Some(key), _) => (cert, key),
        (Some(_), None, _) => {
            return Err(vec![(KEY, format!("needed beside {CERT}: the key of that certificate"))]);
        }
        (None, Some(_), _) => {
            return Err(vec![(CERT, format!("needed beside {KEY}: the certificate of that key"))]);
        }
        (None, None, Some(_)) => {
            let text = format!("needed for {CLIENT_CA}: clients show certificates over TLS only");
            return Err(vec![(CERT, text)]);
        }
        (None, None, None) => return Ok(None),
    };
    let mut faults = Vec::new();
    let mut found = |key: &'static str, text: String| faults.push((key, text));
    let chain = pem::certificates(cert).map_err(|text| found(CERT, text));
    let private = pem::private_key(key).map_err(|text| found(KEY, text));
    let client_ca = rpc.tls_client_ca.as_deref();
    let roots = client_ca.map(pem::trusted).transpose().map_err(|text| found(CLIENT_CA, text));
    let (Ok(chain), Ok(private), Ok(roots)) = (chain, private, roots) else {
        return Err(faults);
    };
    warnings.extend(lapses((CERT, cert), now, "callers will not trust the gateway"));
    // A trusted certificate is not asked for its dates by rustls.
    warnings.extend(
        client_ca.into_iter().flat_map(|ca| lapses((CLIENT_CA, ca), now, "it is trusted all the same")),
    );
    warnings.extend(open_to_all(key));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![(CERT, error.to_string())])?;
    let config = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.map_err(|error| vec![(CLIENT_CA, error.to_string())])?)
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain, private).map_err(|error| {
        let (side, text) = pem::pair_fault(&error);
        vec![(if side == Side::Key { KEY } else { CERT }, text)]
    })?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(Tls(Arc::new(config))))
}

/// Certificates of a file that are not good now. A warning only: the clock may be what is wrong, and a gateway that
/// does not start serves nobody.
fn lapses((setting, path): (&str, &Path), now: UnixMs, so: &str) -> Vec<String> {
    let certificates = pem::certificates(path).unwrap_or_default();
    let lapsed = (1..).zip(&certificates).filter_map(|(n, certificate)| {
        let when = pem::lapse(certificate, now)?;
        Some(format!("{setting}: certificate {n} of {} {when}; {so}", path.display()))
    });
    lapsed.collect()
}

/// A private key that everybody on this machine can read.
fn open_to_all(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let text = format!(
        "{KEY}: {} can be read by everybody on this machine (mode {:03o}); chmod o-r it",
        path.display(),
        mode & 0o777
    );
    (mode & 0o004 != 0).then_some(text)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
