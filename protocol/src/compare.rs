//! The short string that both ends of a new pairing show, for two people to compare.
//!
//! It comes from the session secret, so somebody in the middle would show two different ones.
//! It is not a secret and proves nothing to a machine.
//!
//! 60 bits in twelve characters of bech32's alphabet, which has no `1`, `b`, `i` and `o`,
//! in three groups: `k4dw-9pqz-33hx`.

use crate::node_id::NodeId;
use crate::secret::Secret;

const LABEL: &str = "packhorse 1 compare";
const ALPHABET: [u8; 32] = *b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The compare string of a session.
pub(crate) fn compare_string(session: &Secret, responder: NodeId, dialler: NodeId) -> String {
    let mut bytes = [0; 8];
    session.fill(
        LABEL,
        &[responder.as_bytes(), dialler.as_bytes()],
        &mut bytes,
    );
    let bits = u64::from_be_bytes(bytes);
    let mut text = String::with_capacity(14);
    for index in 0..12 {
        if index > 0 && index % 4 == 0 {
            text.push('-');
        }
        // The upper 60 bits, five at a time from the top.
        let five = (bits >> (59 - 5 * index)) & 31;
        text.push(char::from(ALPHABET[five as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;

    #[test]
    fn the_string_depends_on_the_secret_and_both_ids() {
        let one = IdentityKey::from_seed(&[1; 32]).id();
        let two = IdentityKey::from_seed(&[2; 32]).id();
        let secret = Secret::copy_of(&[3; 32]);
        let text = compare_string(&secret, one, two);
        assert_eq!(text.len(), 14);
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [4, 4, 4]);
        assert_eq!(text, compare_string(&secret, one, two));
        assert_ne!(text, compare_string(&secret, two, one));
        assert_ne!(text, compare_string(&Secret::copy_of(&[4; 32]), one, two));
    }
}
