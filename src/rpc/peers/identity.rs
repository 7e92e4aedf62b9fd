//! TLS towards peers: whom this node believes, and what it shows. A peer's gRPC port asks for what `rpc.tls_*` says, so
//! the node's own certificate of that port is also what it shows as a client.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::config::Config;
use crate::rpc::client::client_config;

/// See the module's documentation.
#[derive(Clone)]
pub struct PeerTls {
    pub(super) config: Arc<ClientConfig>,
    /// The name that every peer's certificate has; `None`: the address that is dialled.
    pub(super) name: Option<ServerName<'static>>,
}

impl PeerTls {
    /// Reads the files that are set. `None`: the nodes speak plain HTTP/2, since `rpc.tls_cert` is not set.
    ///
    /// # Errors
    /// Which setting is wrong, and what to do.
    pub fn of(config: &Config) -> Result<Option<Self>, String> {
        let (Some(cert), Some(key)) = (&config.rpc.tls_cert, &config.rpc.tls_key) else {
            return Ok(None);
        };
        let own = config.rpc.tls_client_ca.as_ref().map(|_| (cert.as_path(), key.as_path()));
        let ca = config.cluster.peer_ca.as_ref().or(config.rpc.tls_client_ca.as_ref());
        let ca = ca.ok_or(
            "cluster.peer_ca: needed beside rpc.tls_cert: the CA that signed the other nodes' rpc.tls_cert",
        )?;
        let name = config.cluster.peer_name.as_ref().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("cluster.peer_name: {name:?} is no name of a host"))
        });
        let config = client_config(ca, own).map_err(|text| format!("TLS between nodes: {text}"))?;
        Ok(Some(Self { config: Arc::new(config), name: name.transpose()? }))
    }
}
