//! Why a link or a session ends, in a form that steers the retry.
//!
//! The class says who can act; the text beside it is for people only.
//! Numbers are given by hand and never reused: they travel in Verdict, Goodbye and close codes.

/// The class of a refusal, a goodbye or a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum ErrorClass {
    /// The network or the process at the other end went away: retry with backoff.
    Disconnected = 1,
    /// Who the other side is, or what it may do: retry slowly and visibly.
    Authentication = 2,
    /// The other side broke a rule of the protocol: retry with backoff, report.
    Protocol = 3,
    /// Come back after the stated delay; counts as no failure.
    Busy = 4,
    /// Two live nodes show one identity: alarm on both sides, retry slowly.
    IdentityInUse = 5,
    /// A fault of the closing side itself.
    Internal = 6,
    /// A newer session with the same peer took this one's place.
    Displaced = 7,
    /// The closing side stops by intent.
    ShuttingDown = 8,
}

impl ErrorClass {
    /// Every class, in the order of their numbers.
    pub const ALL: [ErrorClass; 8] = [
        ErrorClass::Disconnected,
        ErrorClass::Authentication,
        ErrorClass::Protocol,
        ErrorClass::Busy,
        ErrorClass::IdentityInUse,
        ErrorClass::Internal,
        ErrorClass::Displaced,
        ErrorClass::ShuttingDown,
    ];

    /// The number that travels.
    #[must_use]
    pub const fn to_u16(self) -> u16 {
        self as u16
    }

    /// The class of a number, if this version knows it.
    #[must_use]
    pub fn from_u16(number: u16) -> Option<ErrorClass> {
        Self::ALL.into_iter().find(|class| class.to_u16() == number)
    }

    /// The words that people see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorClass::Disconnected => "disconnected",
            ErrorClass::Authentication => "authentication",
            ErrorClass::Protocol => "protocol",
            ErrorClass::Busy => "busy",
            ErrorClass::IdentityInUse => "identity in use",
            ErrorClass::Internal => "internal",
            ErrorClass::Displaced => "displaced",
            ErrorClass::ShuttingDown => "shutting down",
        }
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_back_to_its_class_and_no_other_number_does() {
        for class in ErrorClass::ALL {
            assert_eq!(ErrorClass::from_u16(class.to_u16()), Some(class));
        }
        assert_eq!(ErrorClass::from_u16(0), None);
        assert_eq!(ErrorClass::from_u16(9), None);
    }
}
