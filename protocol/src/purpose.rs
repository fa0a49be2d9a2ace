//! What a signature is for: the one list of everything an identity key ever signs.
//!
//! A signature made for one purpose is never valid for another, because the purpose's label
//! stands, behind its length, before everything else that is signed.
//! A label is never reused with another meaning; a new meaning takes a new line here.

/// The purpose of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// In Reply: the responder owns its node id and saw this Hello.
    Responder,
    /// In Proof: the dialler owns its node id and saw this Reply.
    Initiator,
}

impl Purpose {
    /// Every purpose there is.
    pub const ALL: [Purpose; 2] = [Purpose::Responder, Purpose::Initiator];

    /// `packhorse`, the protocol version, and the purpose.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Purpose::Responder => "packhorse 1 responder",
            Purpose::Initiator => "packhorse 1 initiator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_begin_alike() {
        let mut labels: Vec<_> = Purpose::ALL.iter().map(|purpose| purpose.label()).collect();
        assert!(labels.iter().all(|label| label.starts_with("packhorse 1 ")));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Purpose::ALL.len());
    }
}
