//! HMAC for the JWT library, which leaves its cryptography to a provider. OpenIM's tokens are HS256 (spec 7.1); the
//! library's ready-made providers bring RSA and elliptic curves, thirty crates that nothing here uses.
//!
//! Not here: what a token says (`token`). Anything but HS256, HS384 and HS512 is refused.

use hmac::digest::KeyInit as _;
use hmac::{Hmac, Mac as _};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use sha2::{Sha256, Sha384, Sha512};
use signature::{Signer, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Keyed::new(*algorithm, key.as_bytes())?)),
    verifier_factory: |algorithm, key| Ok(Box::new(Keyed::new(*algorithm, key.try_get_as_bytes()?)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// A secret as a signing key. The one way to make keys here, since it installs the provider first.
pub(super) fn encoding_key(secret: &str) -> EncodingKey {
    install();
    EncodingKey::from_secret(secret.as_bytes())
}

/// A secret as a key to verify with.
pub(super) fn decoding_key(secret: &str) -> DecodingKey {
    install();
    DecodingKey::from_secret(secret.as_bytes())
}

/// A secret as a key of HS256, its two pads hashed once and for all. `None` stands for a secret that HMAC refuses, of
/// which there is none.
#[derive(Clone)]
pub(super) struct Hs256(Option<Hmac<Sha256>>);

impl Hs256 {
    pub(super) fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).ok())
    }

    /// Whether this is the signature of a text. Compares in constant time.
    pub(super) fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        self.0.clone().is_some_and(|mac| mac.chain_update(text).verify_slice(signature).is_ok())
    }
}

fn install() {
    // All but the first call of the process are refused, which changes nothing: there is one provider.
    if PROVIDER.install_default().is_err() {}
}

/// An algorithm and its keyed state.
enum Keyed {
    Hs256(Hmac<Sha256>),
    Hs384(Hmac<Sha384>),
    Hs512(Hmac<Sha512>),
}

impl Keyed {
    fn new(algorithm: Algorithm, secret: &[u8]) -> Result<Self, Error> {
        let bad_key = |_| Error::from(ErrorKind::InvalidKeyFormat);
        match algorithm {
            Algorithm::HS256 => Hmac::new_from_slice(secret).map(Self::Hs256).map_err(bad_key),
            Algorithm::HS384 => Hmac::new_from_slice(secret).map(Self::Hs384).map_err(bad_key),
            Algorithm::HS512 => Hmac::new_from_slice(secret).map(Self::Hs512).map_err(bad_key),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    }

    fn name(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::HS256,
            Self::Hs384(_) => Algorithm::HS384,
            Self::Hs512(_) => Algorithm::HS512,
        }
    }
}

impl Signer<Vec<u8>> for Keyed {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(match self {
            Self::Hs256(mac) => mac.clone().chain_update(message).finalize().into_bytes().to_vec(),
            Self::Hs384(mac) => mac.clone().chain_update(message).finalize().into_bytes().to_vec(),
            Self::Hs512(mac) => mac.clone().chain_update(message).finalize().into_bytes().to_vec(),
        })
    }
}

impl Verifier<Vec<u8>> for Keyed {
    /// Compares in constant time.
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match self {
            Self::Hs256(mac) => mac.clone().chain_update(message).verify_slice(signature),
            Self::Hs384(mac) => mac.clone().chain_update(message).verify_slice(signature),
            Self::Hs512(mac) => mac.clone().chain_update(message).verify_slice(signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Keyed {
    fn algorithm(&self) -> Algorithm {
        self.name()
    }
}

impl JwtVerifier for Keyed {
    fn algorithm(&self) -> Algorithm {
        self.name()
    }
}
