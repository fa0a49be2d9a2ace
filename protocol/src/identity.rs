//! The private half of a node id.
//!
//! It signs, and only for a [`Purpose`]; it never encrypts and never leaves this type.
//! The seed comes from the caller, who drew it and keeps it; this file draws nothing.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};

use crate::node_id::NodeId;
use crate::purpose::Purpose;
use crate::secret::joined;

/// A node's Ed25519 key pair; wiped when dropped.
#[derive(Clone)]
pub struct IdentityKey {
    key: SigningKey,
}

impl IdentityKey {
    /// The key pair of a 32-byte random seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(seed),
        }
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId::of_own_key(self.key.verifying_key().to_bytes())
    }

    /// Signs the purpose's label and the parts, each behind its length.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; 64] {
        self.key.sign(&joined(purpose.label(), parts)).to_bytes()
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.id().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_id::BadSignature;

    #[test]
    fn a_signature_holds_for_its_purpose_parts_and_key_only() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let signature = key.sign(Purpose::Responder, &[b"a", b"bc"]);
        assert_eq!(
            key.id()
                .verify(Purpose::Responder, &[b"a", b"bc"], &signature),
            Ok(())
        );
        let refused = Err(BadSignature);
        assert_eq!(
            key.id()
                .verify(Purpose::Initiator, &[b"a", b"bc"], &signature),
            refused
        );
        assert_eq!(
            key.id()
                .verify(Purpose::Responder, &[b"ab", b"c"], &signature),
            refused
        );
        let other = IdentityKey::from_seed(&[2; 32]).id();
        assert_eq!(
            other.verify(Purpose::Responder, &[b"a", b"bc"], &signature),
            refused
        );
    }

    #[test]
    fn an_own_id_passes_the_check_for_foreign_ids() {
        for seed in 0..32 {
            let id = IdentityKey::from_seed(&[seed; 32]).id();
            assert_eq!(NodeId::from_bytes(*id.as_bytes()), Ok(id));
        }
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let key = IdentityKey::from_seed(&[1; 32]);
        assert_eq!(
            format!("{key:?}"),
            format!("IdentityKey({})", key.id().short())
        );
    }
}
