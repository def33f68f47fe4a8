//! SSH host keys of nodes, derived from the key of the site and who the node is.
//!
//! A node whose root is in memory would make new ones at each boot, and everybody who knows it would be warned. Derived keys
//! need no state: each replica gives the same, and a server that lost everything but its key does, too. Who has the site's
//! key has all host keys; who has one host key learns nothing of the others (HMAC-SHA-256 is a pseudorandom function).

use crate::{nfs::HandleKey, nodes::Known, render};
use ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};

/// A key pair in OpenSSH's formats.
pub(crate) struct HostKey {
    /// The private key, PEM.
    pub(crate) private: String,
    /// The public key, one line.
    pub(crate) public: String,
}

/// The host key of a node.
///
/// # Errors
/// When it cannot be written in OpenSSH's format, which does not happen.
pub(crate) fn derive(key: &HandleKey, node: &Known) -> Result<HostKey, ssh_key::Error> {
    let seed = key.derive("aule ssh host key", render::machine_id(node).as_bytes());
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let private = PrivateKey::new(pair, node.name.clone())?;
    Ok(HostKey { private: private.to_openssh(LineEnding::LF)?.to_string(), public: private.public_key().to_openssh()? })
}
