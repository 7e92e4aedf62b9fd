//! TLS of those who call gRPC ports of Pinion: of a node towards its peers, and of the commands.
//!
//! A peer's gRPC port asks for what `rpc.tls_*` says, so a node's own certificate of that port is also what it shows as
//! a client. The files are read at start and at each reload.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use super::Config;
use super::pem::{self, Side};
use super::tls::{ALPN_H2, TlsFault};

const CA: &str = "cluster.peer_ca";
const NAME: &str = "cluster.peer_name";

/// Whom a node believes among its peers, and what it shows them. Cheap to clone.
#[derive(Clone)]
pub struct PeerTls {
    /// Of the connections.
    pub config: Arc<ClientConfig>,
    /// The name that every peer's certificate has; `None`: the host or address that is dialled.
    pub name: Option<ServerName<'static>>,
}

impl PartialEq for PeerTls {
    /// Files that were read again count as others.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for PeerTls {}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerTls(..)")
    }
}

impl PeerTls {
    /// Reads the files that are set. `None`: the nodes speak plain HTTP/2, since `rpc.tls_cert` is not set.
    ///
    /// # Errors
    /// Which setting is wrong, and what to do.
    pub fn of(config: &Config) -> Result<Option<Self>, TlsFault> {
        let (Some(cert), Some(key)) = (&config.rpc.tls_cert, &config.rpc.tls_key) else {
            return Ok(None);
        };
        let own = config.rpc.tls_client_ca.as_ref().map(|_| (cert.as_path(), key.as_path()));
        let ca = config.cluster.peer_ca.as_ref().or(config.rpc.tls_client_ca.as_ref());
        let needed = "needed beside rpc.tls_cert: the CA that signed the other nodes' rpc.tls_cert";
        let ca = ca.ok_or((CA, needed.to_owned()))?;
        let name = config.cluster.peer_name.as_ref().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| (NAME, format!("{name:?} is no name of a host")))
        });
        let config = client_config(ca, own).map_err(|text| (CA, format!("TLS between nodes: {text}")))?;
        Ok(Some(Self { config: Arc::new(config), name: name.transpose()? }))
    }
}

/// Reads PEM files: the CA that signed the other side's certificate, and our own certificate and key if we show one.
///
/// # Errors
/// Which file is no good, and why.
pub(crate) fn client_config(ca: &Path, own: Option<(&Path, &Path)>) -> Result<ClientConfig, String> {
    let in_file = |path: &Path, text: String| format!("{}: {text}", path.display());
    let roots = pem::trusted(ca).map_err(|text| in_file(ca, text))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = pem::certificates(certificate).map_err(|text| in_file(certificate, text))?;
            let private = pem::private_key(key).map_err(|text| in_file(key, text))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| match pem::pair_fault(&error) {
                (Side::Certificate, text) => in_file(certificate, text),
                (Side::Key, text) => in_file(key, text),
            })?
        }
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
